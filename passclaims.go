package hermes

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hermeshttp/hermes/internal/uuidv7"
)

const (
	// firstBatch is how many rows are claimed first, while it is not known how large they are.
	firstBatch = 16
	// batchBytes is how many bytes of bodies a batch should not exceed.
	batchBytes = 16 << 20
)

// claims are what a pass has claimed, and is yet to claim. It goes through the rows that are due once, in order; through
// those of a slow host apart, so that it can keep few of them.
type claims struct {
	c     *Client
	limit int // of the next batch
	max   int

	all      dueRows
	main     *dueRows            // nil: it has come to its end
	slow     map[string]*dueRows // by host; each until it has come to its end
	suspects []string            // IDs of rows that are to be sent alone, in the end

	batches map[*batch]struct{}
	renewal bool // it is time to look whether any must be renewed
}

// batch is rows that were claimed together: they share a token.
type batch struct {
	token string
	at    time.Time
	until time.Time // by this process' clock
	open  map[*sending]struct{}
}

type claimResult struct {
	scan *dueRows // nil: a renewal
	msgs []*FailedMessage
	renewal
	err error
}

type renewal struct {
	batch *batch
	until time.Time
	lost  []*sending
}

func newClaims(c *Client, opts RetryOptions) claims {
	return claims{c: c, max: opts.BatchSize, limit: min(opts.BatchSize, firstBatch),
		all:     dueRows{filter: opts.Filter},
		slow:    map[string]*dueRows{},
		batches: map[*batch]struct{}{},
	}
}

// begin settles what the pass is over.
func (cl *claims) begin(ctx context.Context) error {
	now, err := cl.c.store.clock(ctx)
	cl.all.since = now
	cl.main = cl.newScan()
	return err
}

// newScan is a way through all that the pass is over.
func (cl *claims) newScan() *dueRows {
	scan := cl.all
	return &scan
}

// next returns what is to be asked of the database now: nil, nothing.
func (cl *claims) next(h *hosts, isIdle bool) func(context.Context) claimResult {
	if cl.renewal {
		if job := cl.renew(); job != nil {
			return job
		}
		cl.renewal = false
	}
	if cl.main != nil && h.wantMore(cl.limit) {
		return cl.gather(cl.main, cl.limit)
	}
	if host := h.nextHungry(); host != "" && cl.slow[host] != nil {
		return cl.gather(cl.slow[host], min(cl.limit, h.few()))
	}
	if cl.main == nil && len(cl.slow) == 0 && len(cl.suspects) > 0 && isIdle && h.queued == 0 {
		alone := cl.newScan()
		alone.filter.IDs, cl.suspects = cl.suspects[:1], cl.suspects[1:]
		return cl.gather(alone, 1)
	}
	return nil
}

func (cl *claims) areDone() bool { return cl.main == nil && len(cl.slow) == 0 && len(cl.suspects) == 0 }

func (cl *claims) gather(s *dueRows, limit int) func(context.Context) claimResult {
	which := *s
	which.notHosts = slices.Clone(s.notHosts)
	return func(ctx context.Context) claimResult {
		r := claimResult{scan: s}
		proof := uuidv7.New()
		r.err = cl.c.store.insistently(ctx, func(ctx context.Context) (err error) {
			r.until = time.Now().Add(cl.c.claimTTL)
			r.msgs, err = cl.c.gather(ctx, which, limit, proof)
			return err
		})
		return r
	}
}

// noted takes in what a claim or a renewal brought.
func (cl *claims) noted(r claimResult) []*sending {
	switch {
	case r.err != nil:
		return nil
	case r.scan == nil:
		r.batch.until = r.until
		return nil
	case len(r.msgs) == 0:
		cl.exhausted(r.scan)
		return nil
	}
	r.scan.after, r.scan.again = r.msgs[len(r.msgs)-1], false
	cl.adapt(r.msgs)
	b := &batch{token: token(r.msgs[0].ClaimToken), at: time.Now(), until: r.until, open: make(map[*sending]struct{}, len(r.msgs))}
	cl.batches[b] = struct{}{}
	all := make([]*sending, len(r.msgs))
	for i, msg := range r.msgs {
		s := &sending{msg: msg, batch: b, claim: &claim{id: msg.ID, token: b.token}}
		if msg.Claims > suspectClaims && (r.scan == cl.main || r.scan == cl.slow[r.scan.host]) {
			s.later = true
			cl.suspects = append(cl.suspects, msg.ID)
		}
		b.open[s] = struct{}{}
		all[i] = s
	}
	return all
}

// exhausted notes that a scan has come to its end.
func (cl *claims) exhausted(s *dueRows) {
	switch s {
	case cl.main:
		cl.main = nil
	case cl.slow[s.host]:
		delete(cl.slow, s.host)
	}
}

// adapt makes the next batch as large as its rows, if they are like these, allow.
func (cl *claims) adapt(msgs []*FailedMessage) {
	size := 1
	for _, msg := range msgs {
		size += len(msg.Body)
	}
	cl.limit = max(1, min(cl.max, max(cl.limit, 2*len(msgs)), batchBytes/(size/len(msgs)+1)))
}

// setApart has a host's rows claimed apart, from this one on.
func (cl *claims) setApart(host string, first *FailedMessage) {
	apart := cl.newScan()
	apart.host, apart.after, apart.again = host, first, true
	cl.slow[host] = apart
	if cl.main != nil {
		cl.main.notHosts = append(cl.main.notHosts, host)
	}
}

// giveUp leaves a host's rows out from now on.
func (cl *claims) giveUp(host string) {
	if cl.main != nil && cl.slow[host] == nil {
		cl.main.notHosts = append(cl.main.notHosts, host)
	}
	delete(cl.slow, host)
}

// settled notes that a row is done with.
func (cl *claims) settled(s *sending) {
	delete(s.batch.open, s)
	if len(s.batch.open) == 0 {
		delete(cl.batches, s.batch)
	}
}

// renew returns the renewal of a batch whose time is running out: nil, if there is none.
func (cl *claims) renew() func(context.Context) claimResult {
	c := cl.c
	least := max(c.claimTTL/2, c.attemptTimeout+claimMargin/2)
	for b := range cl.batches {
		if time.Until(b.until) > least {
			continue
		}
		open := make(map[string]*sending, len(b.open))
		for s := range b.open {
			open[s.msg.ID] = s
		}
		return func(ctx context.Context) claimResult { return c.renewBatch(ctx, b, open) }
	}
	return nil
}

// renewBatch keeps the claims of rows, and finds out which of them are another's by now, or gone.
func (c *Client) renewBatch(ctx context.Context, b *batch, open map[string]*sending) claimResult {
	s := c.store
	r := claimResult{renewal: renewal{batch: b}}
	ids := slices.Collect(maps.Keys(open))
	var kept []string
	err := s.insistently(ctx, func(ctx context.Context) (err error) {
		r.until = time.Now().Add(c.claimTTL)
		kept, err = s.queryIDs(ctx, sql("UPDATE failed_message SET claimed_until = ", s.nowPlus(c.claimTTL),
			" WHERE claim_token = ", arg(b.token), " AND ", in(s, "id", ids), " RETURNING id"))
		return err
	})
	if err != nil {
		r.err = fmt.Errorf("hermes: renewing claims: %w", err)
		return r
	}
	for _, id := range kept {
		delete(open, id)
	}
	r.lost = slices.Collect(maps.Values(open))
	return r
}
