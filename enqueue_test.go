package hermes_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

func TestEnqueueIsCommittedWithTheCallersTransaction(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		ctx := context.Background()
		exec(t, db, "CREATE TABLE payment (id integer)")
		r := newReceiver(t, statuses(200))
		require.NoError(t, db.Transaction(func(tx *gorm.DB) error {
			require.NoError(t, tx.Exec("INSERT INTO payment VALUES (1)").Error)
			_, err := c.Enqueue(ctx, tx, post(t, r.URL, "committed"), time.Time{})
			return err
		}))
		rollback := errors.New("changed my mind")
		require.ErrorIs(t, db.Transaction(func(tx *gorm.DB) error {
			_, err := c.Enqueue(ctx, tx, post(t, r.URL, "rolled back"), time.Time{})
			require.NoError(t, err)
			return rollback
		}), rollback)

		msg := only(t, c)
		assert.Equal(t, "committed", string(msg.Body))
		assert.Equal(t, hermes.StateDue, msg.State())
		assert.Zero(t, msg.Attempts)
		assert.Empty(t, msg.FailureKind)
		assert.Empty(t, r.received(), "it is not sent")
		_, err := c.RetryMessage(ctx, msg)
		require.NoError(t, err)
		require.Len(t, r.received(), 1)
		assert.Equal(t, msg.ID, r.received()[0].Header.Get("Idempotency-Key"))
	})
}

func TestEnqueueWithoutATransactionIsCommittedWhenItReturns(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		ctx := context.Background()
		at := time.Now().Add(time.Hour)
		for name, test := range map[string]struct {
			at   time.Time
			opts []hermes.SendOption
			want time.Duration
		}{
			"at once":                  {want: 0},
			"at a time":                {at: at, want: time.Hour},
			"by a schedule":            {opts: []hermes.SendOption{hermes.Schedule(2 * time.Hour)}, want: 2 * time.Hour},
			"a time before a schedule": {at: at, opts: []hermes.SendOption{hermes.Schedule(2 * time.Hour)}, want: time.Hour},
		} {
			msg, err := c.Enqueue(ctx, nil, post(t, "http://api.example.com/x", name), test.at, test.opts...)
			require.NoError(t, err, name)
			stored := row(t, c, msg.ID)
			assert.WithinDuration(t, time.Now().Add(test.want), *stored.NextAttemptAt, time.Minute, name)
			assert.WithinDuration(t, *msg.NextAttemptAt, *stored.NextAttemptAt, time.Minute, name)
			assert.Equal(t, name, string(stored.Body))
		}
	})
}

func TestEnqueueRefuses(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		ctx := context.Background()
		canceled, cancel := context.WithCancel(ctx)
		cancel()
		get := func() *http.Request { return post(t, "http://api.example.com/", "x") }
		_, err := c.Enqueue(canceled, nil, get(), time.Time{})
		assert.ErrorIs(t, err, context.Canceled)
		_, err = c.Enqueue(ctx, nil, nil, time.Time{})
		assert.ErrorIs(t, err, hermes.ErrInvalidMessage)
		_, err = c.Enqueue(ctx, nil, get(), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC))
		assert.ErrorIs(t, err, hermes.ErrInvalidMessage)
		_, err = c.Enqueue(ctx, &gorm.DB{}, get(), time.Time{})
		assert.ErrorIs(t, err, hermes.ErrInvalidOption)
		_, err = c.Enqueue(ctx, db.Session(&gorm.Session{DryRun: true}), get(), time.Time{})
		assert.ErrorIs(t, err, hermes.ErrInvalidOption)
		require.NoError(t, c.Shutdown(ctx))
		_, err = c.Enqueue(ctx, nil, get(), time.Time{})
		assert.ErrorIs(t, err, hermes.ErrShutdown)
		assert.Zero(t, count(t, c, hermes.Filter{}))
	})
}

func TestEnqueueThatIsNotSavedReturnsTheMessage(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		exec(t, db, "ALTER TABLE failed_message RENAME TO away")
		_, err := c.Enqueue(context.Background(), nil, post(t, "http://api.example.com/", "x"), time.Time{})
		var notSaved *hermes.NotSavedError
		require.ErrorAs(t, err, &notSaved)
		exec(t, db, "ALTER TABLE away RENAME TO failed_message")
		require.NoError(t, c.Save(context.Background(), notSaved.Message))
		assert.Equal(t, "x", string(only(t, c).Body))
	}, hermes.WithSaveTimeout(200*time.Millisecond))
}
