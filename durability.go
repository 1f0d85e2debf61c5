package hermes

import (
	"context"
	"errors"
	"log/slog"
)

// Durability says when a message becomes a row, and so what a process that is killed loses.
type Durability int

const (
	// SaveAfterRetries saves a message when it has failed for good, and not before: it costs nothing while all is well,
	// and a process that is killed loses what it was sending or waiting to send again.
	SaveAfterRetries Durability = iota
	// SaveBeforeRetries saves a message when its first attempt has failed, and deletes the row when another succeeds. A
	// process that is killed loses what it was sending for the first time.
	SaveBeforeRetries
	// SaveBeforeSend saves a message before its first attempt, and deletes the row when it is delivered. A process that
	// is killed loses nothing; what it was sending is sent again, with the same idempotency key.
	SaveBeforeSend
)

// deliver makes a message's attempts and, as the durability asks for it, a row of it before. The error means that
// nothing was sent.
func (c *Client) deliver(ctx context.Context, o *outgoing) (*result, error) {
	if c.durability == SaveBeforeSend && !o.config.noSave {
		if !c.begin(o, func() {}) {
			return nil, ErrShutdown
		}
		unsent := &result{Response: &Response{Outcome: Retryable}}
		if err := c.hold(ctx, o, unsent); err != nil {
			return nil, c.notSaved(ctx, o, unsent, nil, err)
		}
	}
	r := c.run(ctx, o, 1+c.maxRetryAttempts)
	if r.Attempts > 0 {
		return r, nil
	}
	if o.claim == nil {
		return nil, ErrShutdown
	}
	r.Outcome, r.kind, r.err = Retryable, KindCanceled, ErrShutdown
	return r, nil
}

// hold makes a message a row that is claimed, so that no job takes it while it is being sent.
func (c *Client) hold(ctx context.Context, o *outgoing, r *result) error {
	msg, when := c.newFailedMessage(o, r)
	held := c.newClaim(o.id)
	o.mayBeRow = true
	if err := c.save(ctx, msg, when, held); err != nil {
		return err
	}
	o.claim = held
	return nil
}

// holdForRetries makes a message a row before it waits to be sent again. If that fails it goes on without, and tries
// again the next time: in the end the message is delivered, or saved then, or its sender told.
func (c *Client) holdForRetries(ctx context.Context, o *outgoing, r *result) {
	if c.durability != SaveBeforeRetries || o.config.noSave || o.row != nil || o.claim != nil {
		return
	}
	if err := c.hold(ctx, o, r); err != nil {
		c.logger.LogAttrs(ctx, slog.LevelWarn, "hermes: message could not be saved before it is retried", slog.String("id", o.id),
			slog.String("error", o.errorText(err)))
	}
}

// settleHeld records the failure of a message that is a row already. Whatever the database says then, only a delivery or
// an operator can have taken the row away.
func (c *Client) settleHeld(ctx context.Context, o *outgoing, r *result) (*Response, error) {
	err := c.recordFailure(ctx, o, r)
	if errors.Is(err, ErrClaimLost) {
		if _, getErr := c.store.get(context.WithoutCancel(ctx), o.id); errors.Is(getErr, ErrNotFound) {
			return o.response(r), err
		}
		r.err = errors.Join(r.err, err)
	} else if err != nil {
		c.logger.LogAttrs(ctx, slog.LevelError, "hermes: outcome could not be recorded; its row will be retried", slog.String("id", o.id),
			slog.String("error", o.errorText(err)))
	}
	resp := o.response(r)
	resp.FailedMessageID = o.id
	if err == nil {
		c.saved(ctx, o, r)
	}
	return resp, nil
}

// settleRow deletes the row of a message that was delivered. If that fails the message will be sent once more, with the
// same idempotency key; it is delivered all the same.
func (c *Client) settleRow(ctx context.Context, o *outgoing, r *result) {
	if err := c.store.deleteDelivered(ctx, o.id); err != nil {
		if o.claim != nil {
			r.FailedMessageID = o.id
		}
		c.logger.LogAttrs(ctx, slog.LevelError, "hermes: delivered, but its row could not be deleted", slog.String("id", o.id),
			slog.String("error", o.errorText(err)))
	}
}
