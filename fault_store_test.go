package hermes_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

var durabilities = map[string]hermes.Durability{
	"after retries":  hermes.SaveAfterRetries,
	"before retries": hermes.SaveBeforeRetries,
	"before sending": hermes.SaveBeforeSend,
}

// TestFault19_NothingGetsIntoTheStore: whatever is done with it ends in time, with an error that says so, and holds the
// message if there is one.
func TestFault19_NothingGetsIntoTheStore(t *testing.T) {
	for name, broken := range brokenStores() {
		t.Run(name, func(t *testing.T) {
			eachDSN(t, func(t *testing.T, dsn string) {
				healthy := newClient(t, testdb.Open(t, dsn))
				r := newReceiver(t, statuses(503))
				var lost []*hermes.FailedMessage
				t.Run("broken", func(t *testing.T) {
					db, brief := broken(t, testdb.Open(t, dsn), dsn), hermes.WithSaveTimeout(200*time.Millisecond)
					for mode, durability := range durabilities {
						c := impatient(t, db, hermes.WithDurability(durability), hermes.WithMaxRetryAttempts(1), brief)
						_, err := c.SendMessage(post(t, r.URL, mode))
						lost = append(lost, fromNotSaved(t, err))
					}
					c := impatient(t, db, brief)
					ctx, cancel := context.WithTimeout(context.Background(), time.Second)
					defer cancel()
					start := time.Now()
					_, err := c.Enqueue(ctx, nil, post(t, r.URL, "enqueued"), time.Time{})
					lost = append(lost, fromNotSaved(t, err))
					assert.Error(t, c.Save(ctx, sample()))
					_, err = c.RetryAll(ctx, hermes.RetryOptions{})
					assert.Error(t, err)
					_, err = c.GatherFailedMessagesForRetry(ctx, hermes.GatherOptions{})
					assert.Error(t, err)
					soon(t, start)
				})
				if t.Failed() {
					return
				}
				for _, m := range lost {
					require.NoError(t, healthy.Save(context.Background(), m))
				}
				assert.EqualValues(t, 4, count(t, healthy, hermes.Filter{States: []hermes.State{hermes.StateDue}}))
			})
		})
	}
}

func fromNotSaved(t *testing.T, err error) *hermes.FailedMessage {
	t.Helper()
	var lost *hermes.NotSavedError
	require.ErrorAs(t, err, &lost)
	require.ErrorIs(t, err, hermes.ErrNotSaved)
	require.NotNil(t, lost.Message)
	assert.Contains(t, err.Error(), lost.Message.ID)
	return lost.Message
}

// TestFault19_OneConnectionIsEnough: also for who holds it in a transaction, and enqueues in that.
func TestFault19_OneConnectionIsEnough(t *testing.T) {
	eachDSN(t, func(t *testing.T, dsn string) {
		db := testdb.Open(t, dsn)
		pool, err := db.DB()
		require.NoError(t, err)
		pool.SetMaxOpenConns(1)
		for mode, durability := range durabilities {
			c := newClient(t, db, hermes.WithDurability(durability), hermes.WithMaxRetryAttempts(1))
			r := newReceiver(t, statuses(503, 503, 200))
			require.NoError(t, db.Transaction(func(tx *gorm.DB) error {
				_, err := c.Enqueue(context.Background(), tx, post(t, r.URL, "x"), time.Time{})
				return err
			}))
			_, err := c.SendMessage(post(t, r.URL, mode))
			require.NoError(t, err)
			assert.Equal(t, hermes.RetrySummary{Delivered: 2}, retryAll(t, c, hermes.RetryOptions{}))
			assert.Zero(t, pool.Stats().InUse)
		}
	})
}

// TestFault19_TheDiskIsFull: a page limit is as good as a full disk. What is small is not held up by what does not fit.
func TestFault19_TheDiskIsFull(t *testing.T) {
	t.Parallel()
	db := testdb.SQLite(t)
	pool, err := db.DB()
	require.NoError(t, err)
	pool.SetMaxOpenConns(1)
	newClient(t, db)
	exec(t, db, "PRAGMA max_page_count = 60")
	for mode, durability := range durabilities {
		t.Run(mode, func(t *testing.T) {
			c := impatient(t, db, hermes.WithDurability(durability), hermes.WithMaxRetryAttempts(1))
			r := newReceiver(t, statuses(503))
			_, err := c.SendMessage(post(t, r.URL, string(make([]byte, 1<<20))))
			lost := fromNotSaved(t, err)
			assert.ErrorContains(t, err, "full")
			assert.Len(t, lost.Body, 1<<20)
			resp, err := c.SendMessage(post(t, r.URL, "small"))
			require.NoError(t, err)
			assert.NotEmpty(t, resp.FailedMessageID)
		})
	}
}

// TestFault20_ACommitThatIsReportedFailed: the same insert again makes no second row.
func TestFault20_ACommitThatIsReportedFailed(t *testing.T) {
	eachFaulty(t, func(t *testing.T, healthy *hermes.Client, db, faulty *gorm.DB, plan *faults) {
		ctx := context.Background()
		answerLost := fault{at: 1, applied: true}
		for mode, durability := range durabilities {
			c := newClient(t, faulty, hermes.WithDurability(durability), hermes.WithMaxRetryAttempts(0))
			r := newReceiver(t, statuses(503))
			plan.plan(answerLost)
			resp, err := c.SendMessage(post(t, r.URL, mode))
			require.NoError(t, err)
			m := only(t, healthy)
			assert.Equal(t, m.ID, resp.FailedMessageID)
			assert.Equal(t, hermes.StateDue, m.State())
			assert.Equal(t, 1, m.Attempts)
			require.NoError(t, healthy.PurgeMessage(ctx, m))
		}
		c := impatient(t, faulty)
		plan.plan(answerLost)
		m, err := c.Enqueue(ctx, nil, post(t, "http://receiver.example/", "x"), time.Time{})
		require.NoError(t, err)
		assert.Equal(t, m.ID, only(t, healthy).ID)

		plan.plan(fault{at: 1, applied: true, onwards: true})
		lost := sample()
		require.Error(t, c.Save(ctx, lost), "it could not be told")
		plan.plan(fault{})
		before := row(t, healthy, lost.ID)
		lost.Body = []byte("another")
		require.NoError(t, c.Save(ctx, lost))
		assert.Equal(t, before, row(t, healthy, lost.ID), "what is there stays as it is")
		assert.EqualValues(t, 2, count(t, healthy, hermes.Filter{}))
	})
}
