package hermes

import (
	"context"
	"log/slog"
)

// Durability says when a message becomes a row, and so what a process that is killed loses.
type Durability int

const (
	// SaveAfterRetries saves a message when it has failed for good, and not before: it costs nothing while all is well,
	// and a process that is killed loses what it was sending or waiting to send again.
	SaveAfterRetries Durability = iota
	// SaveBeforeRetries saves a message when its first attempt has failed, and deletes the row when another succeeds. A
	// process that is killed loses what it was sending for the first time, and what the database did not take within
	// WithSaveTimeout: that goes on being sent, and is saved before the next wait, or in the end.
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
		if msg, err := c.hold(ctx, o, unsent); err != nil {
			return nil, c.notSaved(ctx, o, msg, nil, err)
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

// hold makes a message a row that is claimed, so that no job takes it while it is being sent. What was tried before may
// have succeeded: it is tried again with the same claim.
func (c *Client) hold(ctx context.Context, o *outgoing, r *result) (*FailedMessage, error) {
	msg, when := c.newFailedMessage(o, r)
	if o.tried == nil {
		o.tried = c.newClaim(o.id)
	}
	if err := c.save(ctx, msg, when, o.tried); err != nil {
		return msg, err
	}
	o.claim = o.tried
	return msg, nil
}

// holdForRetries makes a message a row before it waits to be sent again. If that fails it goes on without, and tries
// again the next time: in the end the message is delivered, or saved then, or its sender told.
func (c *Client) holdForRetries(ctx context.Context, o *outgoing, r *result) {
	if c.durability != SaveBeforeRetries || o.config.noSave || o.row != nil || o.claim != nil {
		return
	}
	if _, err := c.hold(ctx, o, r); err != nil {
		c.logger.LogAttrs(ctx, slog.LevelWarn, "hermes: message could not be saved before it is retried", slog.String("id", o.id),
			slog.String("error", o.errorText(err)))
	}
}
