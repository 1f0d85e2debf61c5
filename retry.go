package hermes

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// RetryMessage sends a row's message again, due or not: up to WithMaxRetryAttempts attempts (at least one), the first at
// once. Delivered, the row is deleted; failed, the outcome and the next due time (Schedule, WithRedeliveryBackoff,
// Retry-After) are recorded in it. The error is nil if and only if what happened is recorded so; Response.Err tells
// what happened. The Response is nil if no attempt was made.
//
// Of msg only ID and ClaimToken are read, and nothing is modified: what is sent is what is in the row. A gathered
// message's claim passes to this call, so that of several calls with the same msg at once one sends. A row that nobody
// has at the moment is claimed, also for a message from the Monitor, or made of an ID alone. The claim is renewed before
// every attempt and freed at the end.
//
// If ctx ends before the first attempt, its error is returned and nothing has changed; later, the attempts made are
// added, but no step of the schedule is used up.
//
// Errors: ErrNotFound; ErrNotRetryable for an invalid or exhausted row, see Reschedule; ErrClaimed if another holds the
// row, as it may when msg was gathered more than WithClaimTTL ago; ErrClaimLost if another took it meanwhile, because
// this process was held up for longer than that (then nothing was recorded but a delivery); ErrUnreadable; ErrShutdown;
// ctx's; the database's.
func (c *Client) RetryMessage(ctx context.Context, msg *FailedMessage) (*Response, error) {
	if msg == nil {
		return nil, invalid("message", "nil")
	}
	if c.isStopped() {
		return nil, ErrShutdown
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	held, row, err := c.take(ctx, msg.ID, msg.ClaimToken)
	if err != nil {
		return nil, err
	}
	o, err := outgoingFrom(row)
	if err != nil {
		return nil, errors.Join(err, c.postpone(context.WithoutCancel(ctx), row))
	}
	o.claim = held
	defer c.end(o)
	r := c.run(ctx, o, max(1, c.maxRetryAttempts))
	if r.Attempts == 0 {
		_, err := c.release(context.WithoutCancel(ctx), held.token, []string{held.id})
		return nil, errors.Join(ErrShutdown, err)
	}
	resp := o.response(r)
	if r.Outcome == Delivered {
		c.delivered(ctx, o, r)
		if err := c.store.deleteDelivered(ctx, held.id); err != nil {
			resp.FailedMessageID = held.id
			return resp, fmt.Errorf("hermes: %s was delivered, but its row could not be deleted: %w", held.id, err)
		}
		return resp, nil
	}
	resp.FailedMessageID = row.ID
	if err := c.recordFailure(ctx, o, r); err != nil {
		return resp, err
	}
	c.saved(ctx, o, r)
	return resp, nil
}

// Reschedule makes the rows that match f due at a time, by its zero value now, whatever they are: waiting, invalid or
// exhausted. A NotAfter that has passed by then is lifted. Rows that are claimed at the moment are left out. It returns
// how many rows it changed, and fails with ErrUnboundedFilter for a filter without any condition; see Everything.
//
// An operator's decision, not a job's: the n-th retry of a schedule that is used up is one more, then the row is
// exhausted again.
func (c *Client) Reschedule(ctx context.Context, f Filter, at time.Time) (int64, error) {
	if f.isUnbounded() {
		return 0, ErrUnboundedFilter
	}
	s := c.store
	when := s.timeOr(&at, s.now())
	where := append(s.conditions(f), s.unclaimed())
	n, err := s.exec(ctx, sql("UPDATE failed_message SET "+free+", claims = 0, retryable = (1 = 1), next_attempt_at = ", when,
		", not_after = CASE WHEN not_after <= ", when, " THEN NULL ELSE not_after END, updated_at = ", s.now(),
		" WHERE ", list(where, " AND ")))
	if err != nil {
		return 0, fmt.Errorf("hermes: rescheduling: %w", err)
	}
	return n, nil
}
