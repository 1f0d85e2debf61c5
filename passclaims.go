package hermes

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const (
	// renewalCheck is how often claims are looked after.
	renewalCheck = time.Second
	// firstBatch is how many rows are claimed first, while it is not known how large they are.
	firstBatch = 16
	// batchBytes is how many bytes of bodies a batch should not exceed.
	batchBytes = 16 << 20
)

// claims are what a pass has claimed, and is yet to claim. It goes through the rows due once, in order; and, while the
// rows that come next are all of hosts that are busy, ahead through those of other hosts.
type claims struct {
	c     *Client
	limit int // of the next batch
	max   int

	main, ahead, suspects dueRows
	noneAhead             bool
	phase                 phase
	areDone               bool

	dead    []string
	batches map[*batch]struct{}
	renewal bool // it is time to look whether any must be renewed
}

type phase int

const (
	ordinaryRows phase = iota
	suspectRows
)

// batch is rows that were claimed together: they share a token.
type batch struct {
	token string
	until time.Time // by this process' clock
	open  map[*sending]struct{}
}

type claimResult struct {
	scan  *dueRows // nil: a renewal
	msgs  []*FailedMessage
	batch *batch
	until time.Time
	lost  []*sending
	err   error
}

func newClaims(c *Client, opts RetryOptions) claims {
	return claims{c: c, max: opts.BatchSize, limit: min(opts.BatchSize, firstBatch), batches: map[*batch]struct{}{},
		main:     dueRows{filter: opts.Filter},
		ahead:    dueRows{filter: opts.Filter},
		suspects: dueRows{filter: opts.Filter, suspect: true},
	}
}

// begin settles what the pass is over.
func (cl *claims) begin(ctx context.Context) error {
	now, err := cl.c.store.clock(ctx)
	if err != nil {
		return err
	}
	for _, scan := range []*dueRows{&cl.main, &cl.ahead, &cl.suspects} {
		scan.since = now
	}
	return nil
}

// next returns what is to be asked of the database now: nil, nothing.
func (cl *claims) next(h *hosts, isIdle, hasRoom bool) func(context.Context) claimResult {
	if cl.renewal {
		if job := cl.renew(); job != nil {
			return job
		}
		cl.renewal = false
	}
	switch {
	case cl.areDone:
		return nil
	case cl.phase == suspectRows:
		if !isIdle || h.queued > 0 {
			return nil // they are sent alone
		}
		return cl.gather(&cl.suspects, 1)
	case h.queued < cl.limit:
		return cl.gather(&cl.main, cl.limit)
	case hasRoom && len(h.ready) == 0 && !cl.noneAhead && h.queued < 4*cl.max:
		busy := h.waiting()
		for _, name := range busy {
			if !slices.Contains(cl.ahead.notHosts, name) {
				cl.ahead.notHosts = append(cl.ahead.notHosts, name)
			}
		}
		return cl.gather(&cl.ahead, cl.limit)
	}
	return nil
}

func (cl *claims) gather(scan *dueRows, limit int) func(context.Context) claimResult {
	which := *scan
	which.notHosts = slices.Concat(cl.dead, scan.notHosts)
	return func(ctx context.Context) claimResult {
		var msgs []*FailedMessage
		until := time.Time{}
		err := cl.c.store.insistently(ctx, func(ctx context.Context) (err error) {
			until = time.Now().Add(cl.c.claimTTL)
			msgs, err = cl.c.gather(ctx, which, limit)
			return err
		})
		return claimResult{scan: scan, msgs: msgs, until: until, err: err}
	}
}

// noted takes in what a claim brought.
func (cl *claims) noted(r claimResult) []*sending {
	if r.err != nil {
		return nil
	}
	if r.scan == nil {
		r.batch.until = r.until
		return nil
	}
	if len(r.msgs) == 0 {
		cl.exhausted(r.scan)
		return nil
	}
	r.scan.after = r.msgs[len(r.msgs)-1]
	cl.adapt(r.msgs)
	b := &batch{token: token(r.msgs[0].ClaimToken), until: r.until, open: make(map[*sending]struct{}, len(r.msgs))}
	cl.batches[b] = struct{}{}
	all := make([]*sending, len(r.msgs))
	for i, msg := range r.msgs {
		all[i] = &sending{msg: msg, batch: b, claim: &claim{id: msg.ID, token: b.token, by: cl.c.instanceID, ttl: cl.c.claimTTL}}
		b.open[all[i]] = struct{}{}
	}
	return all
}

// exhausted notes that a scan has come to its end.
func (cl *claims) exhausted(scan *dueRows) {
	switch scan {
	case &cl.ahead:
		cl.noneAhead = true
	case &cl.main:
		cl.phase = suspectRows
	case &cl.suspects:
		cl.areDone = true
	}
}

// adapt makes the next batch as large as its rows, if they are like these, allow.
func (cl *claims) adapt(msgs []*FailedMessage) {
	size := 1
	for _, msg := range msgs {
		size += len(msg.Body)
	}
	cl.limit = max(1, min(cl.max, 2*cl.limit, batchBytes/(size/len(msgs)+1)))
}

// giveUp leaves a host's rows out from now on.
func (cl *claims) giveUp(host string) { cl.dead = append(cl.dead, host) }

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

// renewBatch keeps the claims of rows, and finds out which of them are another's by now.
func (c *Client) renewBatch(ctx context.Context, b *batch, open map[string]*sending) claimResult {
	ids := make([]string, 0, len(open))
	for id := range open {
		ids = append(ids, id)
	}
	s := c.store
	r := claimResult{batch: b}
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
	for _, lost := range open {
		r.lost = append(r.lost, lost)
	}
	return r
}
