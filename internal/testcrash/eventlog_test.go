package testcrash

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

type eventKind string

// What a child process tells.
const (
	ready          eventKind = "ready"
	intended       eventKind = "intended"  // SendMessage is about to be called; text: the key, if the caller sets it
	accepted       eventKind = "accepted"  // it returned nil
	refused        eventKind = "refused"   // it returned an error
	saved          eventKind = "saved"     // the insert of the message's row was committed
	stopped        eventKind = "stopped"   // the sender is where it is to be killed
	attemptStarted eventKind = "started"   // text: number and whether it is a retry of a row
	attemptDone    eventKind = "done"      // text: status and kind of failure
	claimLost      eventKind = "claimlost" // text: the message's ID
	failed         eventKind = "failed"    // text: an error that the child did not expect
)

type event struct {
	at      time.Time
	kind    eventKind
	number  int   // of the message; 0: of none
	attempt int64 // of the process; 0: none
	text    string
}

// eventLog writes events. Each is one write to a pipe, which survives its writer.
type eventLog struct {
	attempts atomic.Int64 // begun

	mu  sync.Mutex
	out *os.File
}

func (l *eventLog) note(kind eventKind, number int, attempt int64, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := fmt.Sprintf("%d %s %d %d %q\n", time.Now().UnixNano(), kind, number, attempt, text)
	if _, err := l.out.WriteString(line); err != nil {
		os.Exit(1) // nobody listens any more
	}
}

func (l *eventLog) failed(err error) { l.note(failed, 0, 0, err.Error()) }

func parseEvent(line string) (e event, err error) {
	fields := strings.SplitN(line, " ", 5)
	if len(fields) != 5 {
		return e, fmt.Errorf("not an event: %q", line)
	}
	var nanos int64
	if _, err := fmt.Sscan(strings.Join([]string{fields[0], fields[2], fields[3]}, " "), &nanos, &e.number, &e.attempt); err != nil {
		return e, fmt.Errorf("%q: %w", line, err)
	}
	e.at, e.kind = time.Unix(0, nanos), eventKind(fields[1])
	e.text, err = strconv.Unquote(fields[4])
	return e, err
}
