package hermes

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"gorm.io/gorm"
)

// Enqueue makes req a row without sending it: a job of one's own sends it later, see RetryAll. It returns the row.
//
// With tx, a transaction of the caller's on the client's database, the row is written in it: it is there if and only if
// tx is committed, together with whatever else is (an outbox). An error leaves tx to be rolled back. With a nil tx the
// row is written at once, together with others that are saved at the same time, and Enqueue returns when it is committed;
// on SQLite not from within a transaction, which has the lock that this waits for.
//
// Each call makes a row of its own, also with an IdempotencyKey that another row has: the receiver tells them apart.
//
// The message is due at the given time; by the zero time, after the first delay of its Schedule, or now.
//
// Errors: as for SendMessage, ErrInvalidMessage, ErrBodyTooLarge, ErrShutdown, and ctx's error; without tx,
// *NotSavedError with the message in it; with tx, the database's; ErrInvalidOption if tx is of another kind of database.
// SaveOnFailure is of no meaning here.
//
// req is treated as by SendMessage; its own context does not count.
func (c *Client) Enqueue(ctx context.Context, tx *gorm.DB, req *http.Request, at time.Time, opts ...SendOption) (*FailedMessage, error) {
	o, err := c.newOutgoing(req, opts)
	if err != nil {
		return nil, err
	}
	if !at.IsZero() && !hasStorableYear(at) {
		return nil, invalid("time", "not in a year from 1 to 9999: %v", at)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	defer c.end(o)
	if !c.begin(o, func() {}) {
		return nil, ErrShutdown
	}
	msg, when := c.newFailedMessage(o, &result{Response: &Response{Outcome: Retryable}})
	row := rowFrom(msg, when, nil)
	if !at.IsZero() {
		at = at.UTC().Round(0)
		msg.NextAttemptAt, row.NextAttemptAt = &at, &at
	}
	if tx != nil {
		if err := c.insertInto(ctx, tx, row); err != nil {
			return nil, err
		}
		return msg, nil
	}
	if err := c.saves.insert(ctx, row); err != nil {
		return nil, c.notSaved(ctx, o, msg, nil, err)
	}
	return msg, nil
}

// insertInto writes a row on tx's connection. A statement that fails there is not repeated: PostgreSQL takes no other
// until tx is rolled back.
func (c *Client) insertInto(ctx context.Context, tx *gorm.DB, row *newRow) error {
	switch {
	case tx.Config == nil || tx.Statement == nil || tx.Name() != c.store.dialect.Name:
		return fmt.Errorf("%w: tx: not of the client's database", ErrInvalidOption)
	case tx.DryRun:
		return fmt.Errorf("%w: tx: a DryRun session", ErrInvalidOption)
	case tx.Error != nil:
		return tx.Error
	}
	if err := c.store.on(tx).insert(ctx, row); err != nil {
		return fmt.Errorf("hermes: enqueuing: %w", err)
	}
	return nil
}

// on returns the store as it is seen on tx's connection.
func (s *store) on(tx *gorm.DB) *store {
	other := *s
	other.inTransaction = true
	other.pool = tx.Statement.ConnPool
	return &other
}
