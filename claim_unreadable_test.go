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

func TestARowThatCannotBeReadIsPostponedAndBlocksNothing(t *testing.T) {
	for name, damage := range map[string]struct {
		column string
		value  any
	}{
		"header, bytes":        {"header", []byte("\x00\xff garbage")},
		"header, cut off":      {"header", []byte("A: b\r\nC: d")},
		"URL":                  {"url", "http://[::1"},
		"method":               {"method", "GE T"},
		"metadata, no JSON":    {"metadata", "{"},
		"metadata, other JSON": {"metadata", `["tenant"]`},
		"metadata, numbers":    {"metadata", `{"tenant":1}`},
		"schedule":             {"schedule", `["1h"]`},
		"attempt log":          {"attempt_log", `[{"at":"yesterday"}]`},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, _ *hermes.Client, db *gorm.DB) {
				ctx := context.Background()
				var reported []hermes.UnreadableInfo
				c := newClient(t, db, hermes.WithHooks(hermes.Hooks{Unreadable: func(_ context.Context, info hermes.UnreadableInfo) {
					reported = append(reported, info)
				}}))
				labels := func(m *hermes.FailedMessage) { m.Metadata = map[string]string{"tenant": "a"} }
				bad := saved(t, c, dueSince(2*time.Hour), labels).ID
				good := saved(t, c, labels).ID
				set(t, db, bad, damage.column, damage.value)
				before := row(t, c, bad)
				require.ErrorIs(t, before.Unreadable(), hermes.ErrUnreadable)
				_, err := before.NewRequest(ctx)
				require.ErrorIs(t, err, hermes.ErrUnreadable)

				// It is the first in the queue, and yet the other is found, also by its label.
				f := hermes.Filter{Metadata: map[string]string{"tenant": "a"}}
				msgs := gather(t, c, hermes.GatherOptions{Filter: f, Limit: 1})
				require.Equal(t, []string{good}, idsOf(msgs))
				require.NoError(t, c.Release(ctx, msgs...))
				require.Equal(t, []string{good}, idsOf(gather(t, c, hermes.GatherOptions{Limit: 1})))

				require.Len(t, reported, 1)
				assert.Equal(t, bad, reported[0].MessageID)
				assert.ErrorIs(t, reported[0].Err, hermes.ErrUnreadable)
				after := row(t, c, bad)
				assert.WithinRange(t, *after.NextAttemptAt, time.Now().Add(30*time.Second), time.Now().Add(2*time.Hour))
				after.NextAttemptAt = before.NextAttemptAt
				assert.Equal(t, before, after, "all else is as it was")

				_, err = c.RetryMessage(ctx, before)
				assert.ErrorIs(t, err, hermes.ErrUnreadable)
				assert.Len(t, reported, 2)
				assert.Empty(t, row(t, c, bad).ClaimToken)

				page, err := c.Monitor().List(ctx, hermes.Filter{}, hermes.ListOptions{})
				require.NoError(t, err)
				assert.ElementsMatch(t, []string{bad, good}, idsOf(page.Messages))
				_, err = c.Monitor().Count(ctx, f)
				assert.NoError(t, err)
				assert.NoError(t, c.PurgeMessage(ctx, after))
			})
		})
	}
}

func TestARowIsPoisonAfterTenClaimsWithoutAnOutcome(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		m := saved(t, c)
		for i := range 10 {
			msgs := gather(t, c, hermes.GatherOptions{})
			require.Len(t, msgs, 1)
			assert.Equal(t, i+1, msgs[0].Claims)
			expire(t, db, m.ID)
		}
		assert.Empty(t, gather(t, c, hermes.GatherOptions{}))
		poison := row(t, c, m.ID)
		assert.Equal(t, hermes.StateInvalid, poison.State())
		assert.Equal(t, hermes.KindPoison, poison.FailureKind)
		assert.NotEmpty(t, poison.LastError)
		assert.False(t, poison.Retryable)
		assert.Nil(t, poison.NextAttemptAt)
		assert.Empty(t, poison.ClaimToken)
		assert.True(t, poison.UpdatedAt.After(m.UpdatedAt))
		_, err := c.RetryMessage(context.Background(), poison)
		assert.ErrorIs(t, err, hermes.ErrNotRetryable)

		_, err = c.Reschedule(context.Background(), hermes.Everything(), time.Time{})
		require.NoError(t, err)
		assert.Len(t, gather(t, c, hermes.GatherOptions{}), 1, "an operator gives it another chance")
	})
}

// TestClaimsWithAnOutcomeDoNotMakePoison: neither do those given back, nor those of a row asked for by name.
func TestClaimsWithAnOutcomeDoNotMakePoison(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		ctx := context.Background()
		m := saved(t, c, to(newReceiver(t, statuses(503)).URL))
		for i := range 12 {
			msgs := gather(t, c, hermes.GatherOptions{})
			require.Len(t, msgs, 1, i)
			require.NoError(t, c.Release(ctx, msgs...))
			msgs = gather(t, c, hermes.GatherOptions{})
			require.Len(t, msgs, 1, i)
			_, err := c.RetryMessage(ctx, msgs[0])
			require.NoError(t, err)
			assert.Zero(t, row(t, c, m.ID).Claims)
			set(t, db, m.ID, "next_attempt_at", ago(time.Minute))
		}
		assert.Equal(t, 12, row(t, c, m.ID).Retries)
	}, hermes.WithMaxRetryAttempts(0))
}

// TestRetryMessageCountsItsOwnClaims: a row that nobody gathers, only asks for, becomes poison too.
func TestRetryMessageCountsItsOwnClaims(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		r := newReceiver(t, statuses(200))
		m := saved(t, c, to(r.URL))
		set(t, db, m.ID, "claims", 10)
		_, err := c.RetryMessage(context.Background(), m)
		assert.ErrorIs(t, err, hermes.ErrNotRetryable)
		assert.Equal(t, hermes.KindPoison, row(t, c, m.ID).FailureKind)
		assert.Empty(t, r.received())
	})
}

// TestTheNeighboursOfAPoisonRowAreDelivered: it ends the process that sends it, with all that was gathered with it.
func TestTheNeighboursOfAPoisonRowAreDelivered(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		ctx := context.Background()
		r := newReceiver(t, statuses(200))
		killer := saved(t, c, dueSince(2*time.Hour), to(r.URL+"/killer")).ID
		for range 5 {
			saved(t, c, to(r.URL))
		}
		died := 0
		for range 60 {
			msgs := gather(t, c, hermes.GatherOptions{})
			if len(msgs) == 0 {
				break
			}
			for _, m := range msgs {
				if m.ID == killer {
					died++
					break
				}
				_, err := c.RetryMessage(ctx, m)
				require.NoError(t, err)
			}
			exec(t, db, "UPDATE failed_message SET claimed_until = ? WHERE claimed_until IS NOT NULL", ago(time.Second))
		}
		assert.Equal(t, 10, died)
		assert.Len(t, r.received(), 5)
		assert.Equal(t, hermes.KindPoison, only(t, c).FailureKind)
	})
}

// TestGatherEndsWithAnErrorWhenTheDatabaseDoes and not with an empty result.
func TestGatherEndsWithAnErrorWhenTheDatabaseDoes(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		saved(t, c)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := c.GatherFailedMessagesForRetry(ctx, hermes.GatherOptions{})
		assert.ErrorIs(t, err, context.Canceled)
		exec(t, db, "ALTER TABLE failed_message RENAME TO away")
		_, err = c.GatherFailedMessagesForRetry(context.Background(), hermes.GatherOptions{})
		assert.Error(t, err)
		resp, err := c.RetryMessage(context.Background(), sample())
		assert.Error(t, err)
		assert.False(t, errors.Is(err, hermes.ErrNotFound))
		assert.Nil(t, resp)
	})
}

// TestAPanickingUnreadableHookChangesNothing.
func TestAPanickingUnreadableHookChangesNothing(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		bad := saved(t, c).ID
		set(t, db, bad, "method", "GE T")
		assert.Empty(t, gather(t, c, hermes.GatherOptions{}))
		assert.Equal(t, hermes.StateWaiting, row(t, c, bad).State())
	}, hermes.WithHooks(hermes.Hooks{Unreadable: func(context.Context, hermes.UnreadableInfo) { panic(http.ErrAbortHandler) }}))
}
