package hermes

import (
	"container/heap"
	"slices"
	"time"

	"golang.org/x/time/rate"
)

// deadAfter is how many attempts in a row must get no answer for a host to be given up for the rest of a pass.
const deadAfter = 5

// slowAfter is how long a row waits for its host's turn until the host is called slow.
const slowAfter = 250 * time.Millisecond

// hosts are the queues of a pass: of each host its rows, and the hosts that may be sent to at the moment in turn.
//
// A host whose rows wait long is slow, for the rest of the pass: few of its rows are kept, and all slow hosts together get
// half of the pass' attempts at a time as long as there are others.
type hosts struct {
	perHost  int
	slowMost int // attempts at a time
	rate     rate.Limit
	byName   map[string]*host
	ready    []*host // in turn
	held     []*host // slow ones that would be ready
	delayed  delayedHosts
	hungry   []string // slow ones of which more rows are wanted

	queued, queuedSlow int
	inFlightSlow       int
}

type host struct {
	name     string
	queue    []*sending
	inFlight int
	failures int // attempts without an answer, since the last that got one
	dead     bool
	slow     bool
	leaving  int           // rows that are on their way back into the table
	limiter  *rate.Limiter // nil: without a limit
	reserved bool          // the next attempt's time has been asked for
	from     time.Time     // and is this
	waits    bool          // it is in ready, held or delayed
}

func newHosts(opts RetryOptions) hosts {
	return hosts{perHost: opts.PerHost, slowMost: max(1, opts.Concurrency/2), rate: rate.Limit(opts.RatePerHost),
		byName: map[string]*host{}}
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
	h.count(to, 1)
	h.line(to)
	return true
}

// count notes that n more of a host's rows are queued.
func (h *hosts) count(of *host, n int) {
	h.queued += n
	if of.slow {
		h.queuedSlow += n
	}
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

// wantMore tells whether rows should be claimed, a batch being that many: soon there would be none, or all that there are
// wait for their hosts while others' could be sent.
func (h *hosts) wantMore(batch int) bool {
	queued := h.queued - h.queuedSlow
	return queued < batch || len(h.ready) == 0 && queued < 3*batch
}

// next returns the row to be sent next, without taking it out of its queue.
func (h *hosts) next(now time.Time) *sending {
	for len(h.delayed) > 0 && !h.delayed[0].from.After(now) {
		h.ready = append(h.ready, heap.Pop(&h.delayed).(*host))
	}
	mayBeSlow := h.inFlightSlow < h.slowMost || h.queued == h.queuedSlow
	if mayBeSlow && len(h.held) > 0 {
		h.ready = append(h.ready, h.held...)
		h.held = nil
	}
	for len(h.ready) > 0 {
		first := h.ready[0]
		switch {
		case len(first.queue) == 0: // its rows were given back
			first.waits = false
		case first.slow && !mayBeSlow:
			h.held = append(h.held, first)
		default:
			return first.queue[0]
		}
		h.ready = h.ready[1:]
	}
	return nil
}

// sent notes that the row that next returned is on its way: the host goes to the end of the line.
func (h *hosts) sent() {
	to := h.ready[0]
	h.ready = h.ready[1:]
	to.queue[0] = nil
	to.queue = to.queue[1:]
	h.count(to, -1)
	to.inFlight++
	to.waits, to.reserved = false, false
	if to.slow {
		h.inFlightSlow++
		h.feed(to)
	}
	h.line(to)
}

// ended notes that a row's attempt has ended. It tells whether its host is to be given up now.
func (h *hosts) ended(s *sending) bool {
	to := h.byName[s.msg.Host]
	to.inFlight--
	if to.slow {
		h.inFlightSlow--
	}
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
	if to.inFlight == 0 && len(to.queue) == 0 && !to.waits && to.failures == 0 && to.limiter == nil && !to.slow {
		delete(h.byName, to.name) // there may be very many
	}
	return false
}

// giveUp takes no more rows of a host, and returns those it has.
func (h *hosts) giveUp(name string) []*sending {
	to := h.byName[name]
	to.dead = true
	return h.keep(to, 0)
}

// keep leaves that many of a host's rows in its queue, and returns the others.
func (h *hosts) keep(of *host, n int) []*sending {
	n = min(n, len(of.queue))
	rest := slices.Clone(of.queue[n:])
	clear(of.queue[n:])
	of.queue = of.queue[:n]
	h.count(of, -len(rest))
	return rest
}

// few is how many rows of a slow host are kept.
func (h *hosts) few() int { return 2 * h.perHost }

// slowDown looks for hosts that have become slow, and returns what is not to be kept of each.
func (h *hosts) slowDown(now time.Time) map[string][]*sending {
	var rest map[string][]*sending
	for name, of := range h.byName {
		if of.slow || of.dead || len(of.queue) <= h.few() || now.Sub(of.queue[0].batch.at) < slowAfter {
			continue
		}
		of.slow = true
		h.queuedSlow += len(of.queue)
		h.inFlightSlow += of.inFlight
		if rest == nil {
			rest = map[string][]*sending{}
		}
		rest[name] = h.keep(of, h.few())
		of.leaving = len(rest[name])
	}
	return rest
}

// left notes that a row of a slow host is back in the table, where it can be claimed again.
func (h *hosts) left(name string) {
	if of := h.byName[name]; of != nil && of.leaving > 0 {
		of.leaving--
		h.feed(of)
	}
}

// claimed notes that more rows of a slow host were asked for, which need not have brought any to send.
func (h *hosts) claimed(name string) {
	if of := h.byName[name]; of != nil {
		h.feed(of)
	}
}

// feed asks for more rows of a slow host.
func (h *hosts) feed(of *host) {
	if len(of.queue) < h.perHost && of.leaving == 0 && !of.dead && !slices.Contains(h.hungry, of.name) {
		h.hungry = append(h.hungry, of.name)
	}
}

// nextHungry returns a slow host of which more rows are wanted: "", there is none.
func (h *hosts) nextHungry() string {
	if len(h.hungry) == 0 {
		return ""
	}
	name := h.hungry[0]
	h.hungry = h.hungry[1:]
	return name
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
	if i < 0 {
		return false
	}
	from.queue = slices.Delete(from.queue, i, i+1)
	h.count(from, -1)
	if from.slow {
		h.feed(from)
	}
	return true
}

// emptyAll empties all queues.
func (h *hosts) emptyAll() []*sending {
	var all []*sending
	for _, of := range h.byName {
		all = append(all, h.keep(of, 0)...)
	}
	return all
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
