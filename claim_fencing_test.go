package hermes_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

// takeOver lets the claim of a row run out and gives it to another instance.
func takeOver(t *testing.T, db *gorm.DB, id string) *hermes.FailedMessage {
	t.Helper()
	expire(t, db, id)
	msgs := gather(t, newClient(t, db, hermes.WithInstanceID("another")), hermes.GatherOptions{})
	require.Len(t, msgs, 1)
	require.Equal(t, id, msgs[0].ID)
	return msgs[0]
}

func TestAFailureUnderALostClaimIsDropped(t *testing.T) {
	each(t, func(t *testing.T, _ *hermes.Client, db *gorm.DB) {
		var lost atomic.Int32
		c := newClient(t, db, hermes.WithMaxRetryAttempts(1), hermes.WithHooks(hermes.Hooks{
			ClaimLost: func(context.Context, hermes.ClaimLostInfo) { lost.Add(1) },
			Saved:     func(context.Context, hermes.SavedInfo) { t.Error("nothing was recorded") },
		}))
		var others *hermes.FailedMessage
		var id string
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			others = takeOver(t, db, id)
			w.WriteHeader(503)
		})
		id = saved(t, c, to(r.URL)).ID
		resp, err := c.RetryMessage(context.Background(), gather(t, c, hermes.GatherOptions{})[0])
		assert.ErrorIs(t, err, hermes.ErrClaimLost)
		assert.Equal(t, 503, resp.StatusCode)
		assert.Equal(t, lookedAt(others), row(t, c, id), "the other's claim stands, nothing is recorded")
		assert.EqualValues(t, 1, lost.Load())
		assert.Len(t, r.received(), 1)
	})
}

func TestASuccessUnderALostClaimPurgesAndTheRowStaysGone(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		ctx := context.Background()
		var id string
		first := newReceiver(t, nil)
		first.answer = func(n int, w http.ResponseWriter, _ *http.Request) {
			if n > 1 { // of the instance that took over, which fails when the row has gone
				w.WriteHeader(503)
				return
			}
			others := takeOver(t, db, id)
			sending, fail := make(chan struct{}), make(chan struct{})
			second := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
				close(sending)
				<-fail
				w.WriteHeader(503)
			})
			set(t, db, id, "url", second.URL)
			done := make(chan error)
			go func() {
				_, err := newClient(t, db, hermes.WithMaxRetryAttempts(0)).RetryMessage(ctx, others)
				done <- err
			}()
			<-sending
			t.Cleanup(func() {
				close(fail)
				assert.ErrorIs(t, <-done, hermes.ErrClaimLost)
				assert.Zero(t, count(t, c, hermes.Filter{}), "a failure does not bring it back")
			})
		}
		id = saved(t, c, to(first.URL)).ID
		resp, err := c.RetryMessage(ctx, gather(t, c, hermes.GatherOptions{})[0])
		require.NoError(t, err)
		assert.True(t, resp.Succeeded())
		assert.Zero(t, count(t, c, hermes.Filter{}))
	})
}

func TestTheClaimIsRenewedBeforeEveryAttempt(t *testing.T) {
	each(t, func(t *testing.T, _ *hermes.Client, db *gorm.DB) {
		const ttl = 20 * time.Second
		var (
			c     *hermes.Client
			id    string
			token = map[string]bool{}
		)
		c = newClient(t, db, hermes.WithClaimTTL(ttl), hermes.WithMaxRetryAttempts(4), hermes.WithHooks(hermes.Hooks{
			AttemptStart: func(ctx context.Context, _ hermes.AttemptStartInfo) context.Context {
				m := row(t, c, id)
				assert.WithinRange(t, *m.ClaimedUntil, time.Now().Add(ttl-5*time.Second), time.Now().Add(ttl))
				deadline, ok := ctx.Deadline()
				assert.True(t, ok && deadline.Before(*m.ClaimedUntil), "an attempt ends within its claim")
				token[m.ClaimToken] = true
				return nil
			},
		}))
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			set(t, db, id, "claimed_until", ago(-2*time.Second))
			w.WriteHeader(503)
		})
		id = saved(t, c, to(r.URL)).ID
		held := gather(t, c, hermes.GatherOptions{})[0]
		set(t, db, id, "claimed_until", ago(-2*time.Second))
		_, err := c.RetryMessage(context.Background(), held)
		require.NoError(t, err)
		assert.Len(t, r.received(), 4)
		assert.Len(t, token, 1)
		assert.NotContains(t, token, held.ClaimToken)
		m := row(t, c, id)
		assert.Empty(t, m.ClaimToken+m.ClaimedBy, "freed at the end")
		assert.Nil(t, m.ClaimedUntil)
		assert.Zero(t, m.Claims)
	})
}

// TestARowThatIsGoneBetweenAttempts: purged, say, by an operator. Nothing is sent any more and nothing comes back.
func TestARowThatIsGoneBetweenAttempts(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			exec(t, db, "DELETE FROM failed_message")
			w.WriteHeader(503)
		})
		m := saved(t, c, to(r.URL))
		resp, err := c.RetryMessage(context.Background(), m)
		assert.ErrorIs(t, err, hermes.ErrClaimLost)
		assert.Equal(t, 1, resp.Attempts)
		assert.Len(t, r.received(), 1)
		assert.Zero(t, count(t, c, hermes.Filter{}))
	})
}

func TestACanceledRetryAddsItsAttemptsAndUsesNoStep(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		ctx, cancel := context.WithCancel(context.Background())
		r := newReceiver(t, func(n int, w http.ResponseWriter, _ *http.Request) {
			if n == 2 {
				cancel()
			}
			w.WriteHeader(503)
		})
		before := saved(t, c, to(r.URL), func(m *hermes.FailedMessage) { m.Schedule = []time.Duration{time.Hour} })
		resp, err := c.RetryMessage(ctx, gather(t, c, hermes.GatherOptions{})[0])
		require.NoError(t, err)
		assert.ErrorIs(t, resp.Err(), context.Canceled)
		m := row(t, c, before.ID)
		assert.Equal(t, before.Attempts+2, m.Attempts)
		assert.Len(t, m.AttemptLog, 2)
		assert.Zero(t, m.Retries)
		assert.Equal(t, before.NextAttemptAt, m.NextAttemptAt)
		assert.Equal(t, hermes.StateDue, m.State(), "its claim is freed")
		assert.Contains(t, m.LastError, "canceled")

		_, err = c.RetryMessage(ctx, m)
		assert.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, m, row(t, c, m.ID), "canceled before: nothing has changed")
		assert.Len(t, r.received(), 2)
	})
}

// TestNoConnectionIsHeldWhileSending: neither a transaction; the pool's only connection is free meanwhile.
func TestNoConnectionIsHeldWhileSending(t *testing.T) {
	eachDSN(t, func(t *testing.T, dsn string) {
		db := testdb.Open(t, dsn)
		pool, err := db.DB()
		require.NoError(t, err)
		pool.SetMaxOpenConns(1)
		c := newClient(t, db, hermes.WithMaxRetryAttempts(2))
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			assert.Zero(t, pool.Stats().InUse)
			assert.Positive(t, count(t, c, hermes.Everything())+1)
			w.WriteHeader(503)
		})
		_, err = c.SendMessage(post(t, r.URL, "x"))
		require.NoError(t, err)
		_, err = c.RetryMessage(context.Background(), gather(t, c, hermes.GatherOptions{})[0])
		require.NoError(t, err)
		assert.Len(t, r.received(), 5)
		for m, err := range c.Monitor().All(context.Background(), hermes.Filter{}) {
			require.NoError(t, err)
			assert.Zero(t, pool.Stats().InUse, m)
		}
	})
}

func TestAClaimMustOutlastAnAttempt(t *testing.T) {
	t.Parallel()
	db := testdb.SQLite(t)
	_, err := hermes.New(db, hermes.WithRequestTimeout(7*time.Second), hermes.WithClaimTTL(17*time.Second-1))
	assert.ErrorIs(t, err, hermes.ErrInvalidOption)
	assert.ErrorContains(t, err, "WithClaimTTL")
	_, err = hermes.New(db, hermes.WithClaimTTL(17*time.Second), hermes.WithRequestTimeout(7*time.Second))
	assert.NoError(t, err)
	_, err = hermes.New(db, hermes.WithRequestTimeout(time.Hour))
	assert.ErrorIs(t, err, hermes.ErrInvalidOption)
}

func TestPurgeMessage(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		ctx := context.Background()
		free, held, expired := saved(t, c), saved(t, c), saved(t, c)
		keep := saved(t, c, dueSince(-time.Hour))
		claimed := gather(t, c, hermes.GatherOptions{Filter: hermes.Filter{IDs: []string{held.ID, expired.ID}}})
		require.Len(t, claimed, 2)
		expire(t, db, expired.ID)

		require.NoError(t, c.PurgeMessage(ctx, free))
		assert.ErrorIs(t, c.PurgeMessage(ctx, free), hermes.ErrNotFound)
		assert.ErrorIs(t, c.PurgeMessage(ctx, held), hermes.ErrClaimed)
		assert.ErrorIs(t, c.PurgeMessage(ctx, &hermes.FailedMessage{ID: held.ID, ClaimToken: "wrong"}), hermes.ErrClaimed)
		require.NoError(t, c.PurgeMessage(ctx, expired))
		for _, m := range claimed {
			if m.ID == held.ID {
				require.NoError(t, c.PurgeMessage(ctx, m), "its holder may")
			}
		}
		assert.Equal(t, keep.ID, only(t, c).ID)
	})
}

// TestARetryCanceledInItsLastAttemptUsesNoStep: not only one that is canceled while it waits.
func TestARetryCanceledInItsLastAttemptUsesNoStep(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		ctx, cancel := context.WithCancel(context.Background())
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(503)
			cancel()
		})
		m := saved(t, c, to(r.URL), func(m *hermes.FailedMessage) { m.Schedule = []time.Duration{time.Hour} })
		resp, err := c.RetryMessage(ctx, m)
		require.NoError(t, err)
		assert.ErrorIs(t, resp.Err(), context.Canceled)
		m = row(t, c, m.ID)
		assert.Zero(t, m.Retries)
		assert.Equal(t, hermes.StateDue, m.State())
	}, hermes.WithMaxRetryAttempts(1))
}

// TestTheClaimIsKeptDuringALongWait: one that is longer than half the claim's time. A trigger counts the renewals.
func TestTheClaimIsKeptDuringALongWait(t *testing.T) {
	t.Parallel()
	db := testdb.SQLite(t)
	c := newClient(t, db, hermes.WithMaxRetryAttempts(2), hermes.WithRequestTimeout(time.Second),
		hermes.WithClaimTTL(11*time.Second), hermes.WithRetryInterval(6*time.Second))
	r := newReceiver(t, statuses(503))
	m := saved(t, c, to(r.URL))
	exec(t, db, "CREATE TABLE renewal (until datetime)")
	exec(t, db, "CREATE TRIGGER renewed AFTER UPDATE OF claimed_until ON failed_message "+
		"BEGIN INSERT INTO renewal VALUES (NEW.claimed_until); END")
	resp, err := c.RetryMessage(t.Context(), m)
	require.NoError(t, err)
	assert.Equal(t, 2, resp.Attempts)
	var updates int
	require.NoError(t, db.Raw("SELECT count(*) FROM renewal").Scan(&updates).Error)
	assert.Equal(t, 4, updates, "taken, renewed at half its time, renewed before the second attempt, freed")
}
