package testcrash

import (
	"fmt"
	"slices"
	"time"

	"github.com/hermeshttp/hermes"
)

// verdict is how many messages, or sends, a run had of each kind.
type verdict struct {
	Messages     int // that senders were about to send
	Promised     int
	Delivered    int
	Lost         int // promised, but not delivered
	Duplicated   int // delivered more than once
	OtherKey     int // of several keys, or not of the one that was set
	Simultaneous int // sends while another process was sending the same message
	Late         int // as these, but perhaps under a claim that had run out
	Refused      int // SendMessage returned an error

	lost         []*message
	simultaneous []*message
}

// judge compares what happened with what d promises.
func (j *journal) judge(d hermes.Durability) verdict {
	j.mu.Lock()
	defer j.mu.Unlock()
	v := verdict{Messages: len(j.messages)}
	for _, m := range j.messages {
		deliveries := 0
		for _, r := range m.requests {
			if r.isAccepted {
				deliveries++
			}
		}
		count(&v.Delivered, deliveries > 0)
		count(&v.Duplicated, deliveries > 1)
		count(&v.Refused, m.isRefused)
		count(&v.OtherKey, !m.hasOneKey())
		count(&v.Promised, m.isPromised(d))
		if m.isPromised(d) && deliveries == 0 {
			v.Lost++
			v.lost = append(v.lost, m)
		}
		j.countSimultaneous(m, &v)
	}
	return v
}

// count adds one if it is so.
func count(n *int, isSo bool) {
	if isSo {
		*n++
	}
}

// isPromised tells whether d promises that the message arrives.
func (m *message) isPromised(d hermes.Durability) bool {
	switch {
	case m.isAccepted:
		return true
	case d == hermes.SaveBeforeRetries:
		return m.isSaved || m.hasWaited
	case d == hermes.SaveBeforeSend:
		return m.isSaved || m.hasBegun || len(m.requests) > 0
	}
	return false
}

// hasOneKey tells whether all requests of the message had the same idempotency key, and the one that was set, if any.
func (m *message) hasOneKey() bool {
	for _, r := range m.requests {
		if r.key == "" || r.key != m.requests[0].key || m.key != "" && r.key != m.key {
			return false
		}
	}
	return true
}

// surelyClaimed is how long after its start an attempt's claim lasts at least: it is renewed if less is left of it.
const surelyClaimed = claimMargin / 2

// countSimultaneous counts the message's requests that began while another process' was under way. j.mu is held.
func (j *journal) countSimultaneous(m *message, v *verdict) {
	for _, second := range m.requests {
		start := j.span(second.attempt).start
		isClaimed := func(first request) bool { return start.Sub(j.span(first.attempt).start) < surelyClaimed }
		meets := func(first request) bool {
			span := j.span(first.attempt)
			return first.attempt.process != second.attempt.process && !start.Before(span.start) && start.Before(span.end)
		}
		if slices.ContainsFunc(m.requests, func(first request) bool { return meets(first) && isClaimed(first) }) {
			v.Simultaneous++
			v.simultaneous = append(v.simultaneous, m)
		}
		count(&v.Late, slices.ContainsFunc(m.requests, func(first request) bool { return meets(first) && !isClaimed(first) }))
	}
}

// span is an attempt's time. One that did not end did so with its process.
func (j *journal) span(id attemptID) attempt {
	a := j.attempts[id]
	if a == nil {
		j.problems = append(j.problems, fmt.Sprintf("a request of an attempt that nobody told of: %v", id))
		return attempt{}
	}
	if !a.end.IsZero() {
		return *a
	}
	if died, ok := j.deaths[id.process]; ok {
		return attempt{start: a.start, end: died}
	}
	return attempt{start: a.start, end: time.Now()}
}
