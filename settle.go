package hermes

import (
	"context"
	"errors"
	"log/slog"
)

// settle reports a delivery, or saves the message.
func (c *Client) settle(ctx context.Context, o *outgoing, r *result) (*Response, error) {
	if r.Outcome == Delivered {
		c.delivered(ctx, o, r)
		if o.tried != nil {
			c.settleRow(ctx, o, r)
		}
		return o.response(r), nil
	}
	if o.config.noSave {
		resp := o.response(r)
		return resp, resp.Err()
	}
	if o.tried != nil && o.claim == nil { // it may be a row that says less
		if msg, err := c.hold(ctx, o, r); err != nil {
			resp := o.response(r)
			return resp, c.notSaved(ctx, o, msg, resp, err)
		}
	}
	if o.claim != nil {
		return c.settleHeld(ctx, o, r)
	}
	return c.settleNew(ctx, o, r)
}

// settleNew makes a message a row.
func (c *Client) settleNew(ctx context.Context, o *outgoing, r *result) (*Response, error) {
	resp := o.response(r)
	msg, when := c.newFailedMessage(o, r)
	if err := c.save(ctx, msg, when, nil); err != nil {
		return resp, c.notSaved(ctx, o, msg, resp, err)
	}
	resp.FailedMessageID = o.id
	c.saved(ctx, o, r)
	return resp, nil
}

// save makes msg a row by the database's clock. Its time is its own: the caller's context may have ended, which is why
// it is saved.
func (c *Client) save(ctx context.Context, msg *FailedMessage, when due, held *claim) error {
	return c.saves.insert(context.WithoutCancel(ctx), rowFrom(msg, when, held))
}

// notSaved is the error of a message that was neither delivered nor, as err says, saved.
func (c *Client) notSaved(ctx context.Context, o *outgoing, msg *FailedMessage, resp *Response, err error) error {
	failed := &NotSavedError{Message: msg, Response: resp, Err: err, text: o.errorText(err)}
	c.logger.Error("hermes: a message was neither delivered nor saved", "message", msg, "error", failed.text)
	hook(c, ctx, c.hooks.NotSaved, NotSavedInfo{MessageID: o.id, Host: o.host(), StatusCode: msg.StatusCode, Err: failed})
	return failed
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
