package testcrash

import (
	"net/http"
	"sync"
	"time"

	"github.com/hermeshttp/hermes"
)

// watcher follows what a child does, tells of it, and stops a sender where it is to be killed.
type watcher struct {
	spec *childSpec
	log  *eventLog

	mu      sync.Mutex
	visits  int
	isSaved map[int]bool // by message number
	waits   map[int]bool // as far as the attempt tells
}

func newWatcher(spec *childSpec, log *eventLog) *watcher {
	return &watcher{spec: spec, log: log, isSaved: map[int]bool{}, waits: map[int]bool{}}
}

// visit does not return if this is where to be killed.
func (w *watcher) visit(p point) {
	if w.isLast(p) {
		w.log.note(stopped, 0, 0, "")
		<-time.After(time.Hour)
	}
}

// isLast counts a visit of p, and tells whether it is the one where to be killed.
func (w *watcher) isLast(p point) bool {
	if p != w.spec.Point {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.visits++
	return w.visits == w.spec.Visit
}

func (w *watcher) attemptStarted(info hermes.AttemptStartInfo) {
	if info.Number == 1 && !info.Retry {
		w.visit(atAttempt)
	}
}

func (w *watcher) attemptDone(info hermes.AttemptDoneInfo) {
	// After a broken connection the next attempt may come at once.
	isWaitedFor := info.StatusCode == http.StatusServiceUnavailable || info.Kind == hermes.KindTimeout
	if !isWaitedFor || info.Retry || info.Number >= attempts {
		return
	}
	w.mark(w.waits, numberOf(info.URL))
}

// rowSaved notes that a message's row was committed.
func (w *watcher) rowSaved(number int) {
	w.log.note(saved, number, 0, "")
	w.mark(w.isSaved, number)
}

// mark notes something of a message, and tells if it waits now: after its attempt failed and, where it is saved before
// it is retried, its row is there.
func (w *watcher) mark(what map[int]bool, number int) {
	w.mu.Lock()
	what[number] = true
	waits := w.waits[number] && (w.isSaved[number] || w.spec.Durability != hermes.SaveBeforeRetries)
	w.mu.Unlock()
	if waits && w.isLast(atWait) {
		w.log.note(stopped, 0, 0, "")
	}
}
