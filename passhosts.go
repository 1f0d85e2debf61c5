package hermes

import (
	"container/heap"
	"slices"
	"time"

	"golang.org/x/time/rate"
)

// deadAfter is how many attempts in a row must get no answer for a host to be given up for the rest of a pass.
const deadAfter = 5

// hosts are the queues of a pass: of each host its rows, and the hosts that may be sent to at the moment in turn.
type hosts struct {
	perHost int
	rate    rate.Limit
	byName  map[string]*host
	ready   []*host
	delayed delayedHosts
	queued  int
}

type host struct {
	name     string
	queue    []*sending
	inFlight int
	failures int // attempts without an answer, since the last that got one
	dead     bool
	limiter  *rate.Limiter // nil: without a limit
	reserved bool          // the next attempt's time has been asked for
	from     time.Time     // and is this
	waits    bool          // it is in ready, or in delayed
}

func newHosts(opts RetryOptions) hosts {
	return hosts{perHost: opts.PerHost, rate: rate.Limit(opts.RatePerHost), byName: map[string]*host{}}
}

// add queues a row. It returns false if its host was given up.
func (h *hosts) add(s *sending) bool {
	to := h.byName[s.msg.Host]
	if to == nil {
		to = &host{name: s.msg.Host}
		if h.rate > 0 {
			burst := max(1, int(h.rate/100)) // what a timer's delay costs is made up for
			to.limiter = rate.NewLimiter(h.rate, burst)
		}
		h.byName[s.msg.Host] = to
	}
	if to.dead {
		return false
	}
	to.queue = append(to.queue, s)
	h.queued++
	h.line(to)
	return true
}

// line puts a host in line if there is something to send to it and it can take it.
func (h *hosts) line(to *host) {
	if to.waits || len(to.queue) == 0 || to.inFlight >= h.perHost {
		return
	}
	to.waits = true
	if to.limiter != nil && !to.reserved {
		now := time.Now()
		to.reserved, to.from = true, now.Add(to.limiter.ReserveN(now, 1).DelayFrom(now))
		if to.from.After(now) {
			heap.Push(&h.delayed, to)
			return
		}
	}
	h.ready = append(h.ready, to)
}

// next returns the row to be sent next, without taking it out of its queue.
func (h *hosts) next(now time.Time) *sending {
	for len(h.delayed) > 0 && !h.delayed[0].from.After(now) {
		h.ready = append(h.ready, heap.Pop(&h.delayed).(*host))
	}
	for len(h.ready) > 0 {
		first := h.ready[0]
		if len(first.queue) > 0 {
			return first.queue[0]
		}
		first.waits = false // its rows were dropped
		h.ready = h.ready[1:]
	}
	return nil
}

// sent notes that the row that next returned is on its way: the host goes to the end of the line.
func (h *hosts) sent(s *sending) {
	to := h.ready[0]
	h.ready = h.ready[1:]
	to.queue[0] = nil
	to.queue = to.queue[1:]
	h.queued--
	to.inFlight++
	to.waits, to.reserved = false, false
	h.line(to)
}

// ended notes that a row's attempt has ended. It tells whether its host is to be given up now.
func (h *hosts) ended(s *sending) bool {
	to := h.byName[s.msg.Host]
	to.inFlight--
	switch {
	case s.result == nil:
	case s.result.StatusCode != 0:
		to.failures = 0
	case isOfHost(s.result.kind):
		to.failures++
	}
	if to.dead || to.failures >= deadAfter {
		return !to.dead
	}
	h.line(to)
	if to.inFlight == 0 && len(to.queue) == 0 && !to.waits && to.failures == 0 && to.limiter == nil {
		delete(h.byName, to.name) // there may be very many
	}
	return false
}

// giveUp takes no more rows of a host, and returns those it has.
func (h *hosts) giveUp(name string) []*sending {
	to := h.byName[name]
	to.dead = true
	return h.empty(to)
}

// isOfHost tells of a failure without an answer whether its host is to blame.
func isOfHost(kind FailureKind) bool {
	switch kind {
	case KindCanceled, KindSigner, KindPanic, KindOther:
		return false
	}
	return true
}

// drop takes out a row that is another's now. It returns false if it is not queued.
func (h *hosts) drop(s *sending) bool {
	from := h.byName[s.msg.Host]
	if from == nil {
		return false
	}
	i := slices.Index(from.queue, s)
	if i >= 0 {
		from.queue = slices.Delete(from.queue, i, i+1)
		h.queued--
	}
	return i >= 0
}

func (h *hosts) empty(from *host) []*sending {
	all := from.queue
	from.queue = nil
	h.queued -= len(all)
	return all
}

// emptyAll empties all queues.
func (h *hosts) emptyAll() []*sending {
	var all []*sending
	for _, from := range h.byName {
		all = append(all, h.empty(from)...)
	}
	return all
}

// waiting returns the names of the hosts that have rows queued.
func (h *hosts) waiting() []string {
	var names []string
	for name, to := range h.byName {
		if len(to.queue) > 0 {
			names = append(names, name)
		}
	}
	return names
}

// wake returns a channel that gets a value when the next host's time has come; stop frees it.
func (h *hosts) wake() (c <-chan time.Time, stop func()) {
	if len(h.delayed) == 0 {
		return nil, func() {}
	}
	timer := time.NewTimer(time.Until(h.delayed[0].from))
	return timer.C, func() { timer.Stop() }
}

// delayedHosts is a heap, the next to send to first.
type delayedHosts []*host

func (d delayedHosts) Len() int           { return len(d) }
func (d delayedHosts) Less(i, j int) bool { return d[i].from.Before(d[j].from) }
func (d delayedHosts) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *delayedHosts) Push(x any)        { *d = append(*d, x.(*host)) }
func (d *delayedHosts) Pop() any {
	old := *d
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	return last
}
