package hermes

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// recordResult is what of a group is recorded now.
type recordResult struct {
	RetrySummary
	group []*sending
	err   error
}

// attemptOnce makes a row's one attempt of a pass.
func (c *Client) attemptOnce(ctx context.Context, s *sending) {
	if ctx.Err() != nil || c.isStopped() {
		return
	}
	if time.Until(s.claim.until) < c.attemptTimeout+claimMargin/2 { // this process was held up
		if s.err = c.renew(ctx, s.claim); s.err != nil {
			return
		}
	}
	o, err := outgoingFrom(s.msg)
	if err != nil {
		s.err = err
		return
	}
	o.claim = s.claim
	s.o = o
	if r := c.run(ctx, o, 1); r.Attempts > 0 {
		s.result = r
	}
}

// recordGroup writes down how attempts ended: those delivered in one statement, those failed in another. What was not
// sent it gives back.
func (c *Client) recordGroup(ctx context.Context, group []*sending) recordResult {
	r := recordResult{group: group}
	var delivered []string
	var failed []*failure
	unsent, later := map[string][]string{}, map[string][]string{}
	for _, s := range group {
		switch {
		case s.err != nil:
			r.err = errors.Join(r.err, c.couldNotSend(ctx, s))
		case s.later:
			later[s.batch.token] = append(later[s.batch.token], s.msg.ID)
		case s.result == nil:
			unsent[s.batch.token] = append(unsent[s.batch.token], s.msg.ID)
		case s.result.Outcome == Delivered:
			c.delivered(ctx, s.o, s.result)
			delivered = append(delivered, s.msg.ID)
		default:
			failed = append(failed, c.failureOf(s.o, s.result))
		}
	}
	r.err = errors.Join(r.err, c.recordDelivered(ctx, delivered, &r.RetrySummary), c.recordFailed(ctx, failed, &r.RetrySummary),
		c.recordUnsent(ctx, unsent, &r.Released), c.recordUnsent(ctx, later, new(int64)))
	if r.err != nil {
		r.err = fmt.Errorf("hermes: recording: %w", r.err)
	}
	for _, s := range group {
		if s.o != nil {
			c.end(s.o)
		}
	}
	return r
}

// couldNotSend reports a row that is another's by now, or postpones one that cannot be sent.
func (c *Client) couldNotSend(ctx context.Context, s *sending) error {
	if errors.Is(s.err, ErrUnreadable) {
		held := *s.msg
		held.ClaimToken = s.claim.token
		held.unreadable = s.err
		return c.postpone(context.WithoutCancel(ctx), &held)
	}
	if errors.Is(s.err, ErrClaimLost) {
		c.claimLost(ctx, s.msg.ID)
		return nil
	}
	return s.err
}

func (c *Client) recordDelivered(ctx context.Context, ids []string, sum *RetrySummary) error {
	if len(ids) == 0 {
		return nil
	}
	if err := c.store.deleteDelivered(ctx, ids...); err != nil {
		return err
	}
	sum.Delivered += int64(len(ids))
	return nil
}

func (c *Client) recordFailed(ctx context.Context, all []*failure, sum *RetrySummary) error {
	if len(all) == 0 {
		return nil
	}
	lost, err := c.recordFailures(ctx, all...)
	if err != nil {
		return err
	}
	isLost := map[*failure]bool{}
	for _, f := range lost {
		isLost[f] = true
	}
	for _, f := range all {
		switch {
		case isLost[f]:
			continue
		case f.o.result.Outcome == Invalid:
			sum.Invalid++
		default:
			sum.Failed++
		}
		c.saved(ctx, f.o, &f.o.result)
	}
	return nil
}

func (c *Client) recordUnsent(ctx context.Context, byToken map[string][]string, count *int64) error {
	for token, ids := range byToken {
		var n int64
		err := c.store.insistently(context.WithoutCancel(ctx), func(ctx context.Context) (err error) {
			n, err = c.release(ctx, token, ids)
			return err
		})
		if err != nil {
			return err
		}
		*count += n
	}
	return nil
}
