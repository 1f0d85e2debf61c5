package testcrash

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// journal is what is known of a run: from the children, from the receiver, and of the children's ends.
type journal struct {
	mu       sync.Mutex
	messages map[int]*message
	attempts map[attemptID]*attempt
	deaths   map[string]time.Time // by process
	problems []string             // that no run should have
	errors   []string             // that the database or a claim may give reason for
}

func newJournal() *journal {
	return &journal{messages: map[int]*message{}, attempts: map[attemptID]*attempt{}, deaths: map[string]time.Time{}}
}

// message is what happened to one.
type message struct {
	number      int
	key         string // that its sender set; "": none
	hasBegun    bool   // its first attempt has
	hasWaited   bool   // its first attempt failed, and the second, in process, has begun
	isSaved     bool
	isAccepted  bool // SendMessage returned nil
	isRefused   bool
	requests    []request
	lastRefusal string
}

// request is one that the receiver got.
type request struct {
	attempt    attemptID
	key        string
	isAccepted bool
}

type attemptID struct {
	process string
	number  int64 // from 1, of the process
}

// attempt is one, as the process that made it told. All have the same clock.
type attempt struct {
	message    int
	start, end time.Time
	how        string // it ended
}

func (j *journal) problem(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.problems = append(j.problems, fmt.Sprintf(format, args...))
}

// message returns what is known of one. j.mu is held.
func (j *journal) message(number int) *message {
	m := j.messages[number]
	if m == nil {
		m = &message{number: number}
		j.messages[number] = m
	}
	return m
}

// told takes in what a process said.
func (j *journal) told(process string, e event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch e.kind {
	case failed, claimLost:
		j.errors = append(j.errors, fmt.Sprintf("%s: %s %s", process, e.kind, e.text))
		return
	case attemptDone:
		a := j.attempts[attemptID{process, e.attempt}]
		a.end, a.how = e.at, e.text
		return
	}
	m := j.message(e.number)
	switch e.kind {
	case intended:
		m.key = e.text
	case attemptStarted:
		j.attempts[attemptID{process, e.attempt}] = &attempt{message: e.number, start: e.at}
		m.hasBegun = true
		number, isRetry, _ := strings.Cut(e.text, " ")
		m.hasWaited = m.hasWaited || number != "1" && isRetry == "false"
	case saved:
		m.isSaved = true
	case accepted:
		m.isAccepted = true
	case refused:
		m.isRefused, m.lastRefusal = true, e.text
	}
}

// died notes that a process has ended, and its attempts with it.
func (j *journal) died(process string, at time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.deaths[process] = at
}

// received notes a request of a message, and returns its answer, which is found by how many there were before.
func (j *journal) received(number int, answerTo func(before int) answer, r request) answer {
	j.mu.Lock()
	defer j.mu.Unlock()
	m := j.message(number)
	a := answerTo(len(m.requests))
	r.isAccepted = a.isAccepted()
	m.requests = append(m.requests, r)
	return a
}

// last tells what the last attempts of a process were, to see why it did not go on.
func (j *journal) last(process string) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	first := attemptID{process, 1}
	for j.attempts[attemptID{process, first.number + 10}] != nil {
		first.number++
	}
	var text strings.Builder
	for id := first; j.attempts[id] != nil; id.number++ {
		a := j.attempts[id]
		fmt.Fprintf(&text, "\n%d: began %v, ended %v (%s), row: %t", a.message, a.start, a.end, a.how, j.messages[a.message].isSaved)
	}
	return text.String()
}
