package hermes_test

import (
	"context"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

// assertDueAfter tells whether a row is due a delay after it was last changed, both by the database's clock.
func assertDueAfter(t *testing.T, delay time.Duration, m *hermes.FailedMessage) {
	t.Helper()
	if assert.NotNil(t, m.NextAttemptAt) {
		assert.WithinDuration(t, m.UpdatedAt.Add(delay), *m.NextAttemptAt, 2*time.Millisecond)
	}
}

// fail retries a row, which fails, and returns what is in it then.
func fail(t *testing.T, c *hermes.Client, id string) *hermes.FailedMessage {
	t.Helper()
	before := row(t, c, id)
	resp, err := c.RetryMessage(context.Background(), before)
	require.NoError(t, err)
	require.True(t, resp.Failed())
	after := row(t, c, id)
	assert.Equal(t, before.Retries+1, after.Retries)
	assert.Equal(t, before.CreatedAt, after.CreatedAt)
	return after
}

// retryAfter answers 503 and asks for a pause, if one is given.
func retryAfter(pause *time.Duration) func(int, http.ResponseWriter, *http.Request) {
	return func(_ int, w http.ResponseWriter, _ *http.Request) {
		if *pause > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(pause.Seconds())))
		}
		w.WriteHeader(503)
	}
}

func TestARowIsDueAtOnceAndThenLaterAndLater(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		resp, err := c.SendMessage(post(t, newReceiver(t, statuses(503)).URL, "x"))
		require.NoError(t, err)
		m := row(t, c, resp.FailedMessageID)
		assertDueAfter(t, 0, m)
		assert.Equal(t, hermes.StateDue, m.State())
		for _, minutes := range []int{1, 2, 4, 8, 16, 32, 60, 60, 60} {
			m = fail(t, c, m.ID)
			assertDueAfter(t, time.Duration(minutes)*time.Minute, m)
			assert.Equal(t, hermes.StateWaiting, m.State())
		}
		assert.Equal(t, 10, m.Attempts)
		assert.Empty(t, gather(t, c, hermes.GatherOptions{}))
	}, hermes.WithMaxRetryAttempts(0))
}

func TestTheLogKeepsTheLast25Attempts(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		r := newReceiver(t, func(n int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500 + n) })
		m := saved(t, c, to(r.URL), func(m *hermes.FailedMessage) { m.Attempts = 0 })
		for range 3 {
			m = fail(t, c, m.ID)
		}
		require.Len(t, m.AttemptLog, 25)
		assert.Equal(t, 30, m.Attempts)
		for i, a := range m.AttemptLog {
			assert.Equal(t, 506+i, a.StatusCode)
		}
	}, hermes.WithMaxRetryAttempts(10))
}

func TestScheduleIsFollowedAndThenExhausted(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		r := newReceiver(t, statuses(503))
		resp, err := c.SendMessage(post(t, r.URL, "x"), hermes.Schedule(time.Hour, 2*time.Hour, 3*time.Hour))
		require.NoError(t, err)
		m := row(t, c, resp.FailedMessageID)
		for _, hours := range []int{1, 2, 3} {
			assertDueAfter(t, time.Duration(hours)*time.Hour, m)
			assert.Equal(t, hermes.StateWaiting, m.State())
			set(t, db, m.ID, "next_attempt_at", ago(time.Second))
			msgs := gather(t, c, hermes.GatherOptions{})
			require.Len(t, msgs, 1)
			require.NoError(t, c.Release(context.Background(), msgs...))
			m = fail(t, c, m.ID)
		}
		assert.Equal(t, hermes.StateExhausted, m.State())
		assert.Nil(t, m.NextAttemptAt)
		assert.True(t, m.Retryable)
		assert.Equal(t, 3, m.Retries)
		assert.Empty(t, gather(t, c, hermes.GatherOptions{}))
		_, err = c.RetryMessage(context.Background(), m)
		assert.ErrorIs(t, err, hermes.ErrNotRetryable)
		assert.Len(t, r.received(), 4)
	}, hermes.WithMaxRetryAttempts(0))
}

func TestARetryThatEndsInvalidIsInvalid(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		m := saved(t, c, to(newReceiver(t, statuses(410)).URL))
		resp, err := c.RetryMessage(context.Background(), m)
		require.NoError(t, err)
		assert.True(t, resp.Invalid())
		m = row(t, c, m.ID)
		assert.Equal(t, hermes.StateInvalid, m.State())
		assert.Equal(t, 410, m.StatusCode)
		assert.Nil(t, m.NextAttemptAt)
	})
}

func TestNotAfter(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		ctx := context.Background()
		r := newReceiver(t, statuses(503))
		_, err := c.SendMessage(post(t, r.URL, "x"), hermes.NotAfter(ago(0)))
		assert.ErrorIs(t, err, hermes.ErrInvalidMessage)
		assert.Empty(t, r.received())

		send := func(notAfter time.Duration, schedule ...time.Duration) *hermes.FailedMessage {
			resp, err := c.SendMessage(post(t, r.URL, "x"), hermes.NotAfter(ago(-notAfter)), hermes.Schedule(schedule...))
			require.NoError(t, err)
			return row(t, c, resp.FailedMessageID)
		}
		assert.Equal(t, hermes.StateExhausted, send(time.Hour, 2*time.Hour).State(), "it would come too late")
		assert.Equal(t, hermes.StateWaiting, send(3*time.Hour, 2*time.Hour).State())
		m := send(90 * time.Second)
		assert.Equal(t, hermes.StateDue, m.State())
		m = fail(t, c, m.ID)
		assertDueAfter(t, time.Minute, m)
		m = fail(t, c, m.ID)
		assert.Equal(t, hermes.StateExhausted, m.State(), "2 minutes are too late")

		late := send(time.Hour)
		set(t, db, late.ID, "not_after", ago(time.Second))
		assert.Equal(t, hermes.StateExhausted, row(t, c, late.ID).State())
		assert.Empty(t, gather(t, c, hermes.GatherOptions{}))
		late = row(t, c, late.ID)
		assert.Nil(t, late.NextAttemptAt)
		assert.Empty(t, late.ClaimToken)
		_, err = c.RetryMessage(ctx, late)
		assert.ErrorIs(t, err, hermes.ErrNotRetryable)
	}, hermes.WithMaxRetryAttempts(0))
}

// TestNotAfterEndsTheAttemptsInProcess: no wait is begun that it would not outlast.
func TestNotAfterEndsTheAttemptsInProcess(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		r := newReceiver(t, statuses(503))
		resp, err := c.SendMessage(post(t, r.URL, "x"), hermes.NotAfter(ago(-time.Minute)))
		require.NoError(t, err)
		assert.Equal(t, 1, resp.Attempts)
		assert.Equal(t, hermes.StateDue, row(t, c, resp.FailedMessageID).State())
	}, hermes.WithRetryInterval(time.Hour))
}

func TestALongerRetryAfterWins(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		pause := 2 * time.Hour
		r := newReceiver(t, retryAfter(&pause))
		send := func(opts ...hermes.SendOption) *hermes.FailedMessage {
			t.Helper()
			before := len(r.received())
			resp, err := c.SendMessage(post(t, r.URL, "x"), opts...)
			require.NoError(t, err)
			assert.Equal(t, before+1, len(r.received()), "longer than is waited for in process")
			return row(t, c, resp.FailedMessageID)
		}
		m := send()
		assertDueAfter(t, pause, m)
		assertDueAfter(t, pause, fail(t, c, m.ID)) // not the backoff's minute
		scheduled := send(hermes.Schedule(time.Hour, 3*time.Hour, time.Hour))
		assertDueAfter(t, pause, scheduled)
		assertDueAfter(t, 3*time.Hour, fail(t, c, scheduled.ID))
		assertDueAfter(t, pause, fail(t, c, scheduled.ID))
		assert.Equal(t, hermes.StateExhausted, fail(t, c, scheduled.ID).State(), "it adds no step to a schedule")

		pause = 1000 * time.Hour
		m = send()
		assertDueAfter(t, 5*time.Hour, m)
		assertDueAfter(t, 5*time.Hour, fail(t, c, m.ID))
		assertDueAfter(t, 6*time.Hour, send(hermes.Schedule(6*time.Hour)))
		assert.Equal(t, hermes.StateExhausted, send(hermes.NotAfter(ago(-time.Hour))).State())
	}, hermes.WithMaxPostpone(5*time.Hour))
}

func TestRedeliveryBackoffOfOnesOwn(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		m := saved(t, c, to(newReceiver(t, statuses(503)).URL))
		assertDueAfter(t, time.Second, fail(t, c, m.ID))
		assertDueAfter(t, 4*time.Second, fail(t, c, m.ID))
		assertDueAfter(t, 0, fail(t, c, m.ID))
	}, hermes.WithMaxRetryAttempts(0), hermes.WithRedeliveryBackoff(squares{}))
}

// squares waits n² seconds, and less than nothing the third time.
type squares struct{}

func (squares) Delay(retry int) time.Duration {
	if retry == 3 {
		return -time.Hour
	}
	return time.Duration(retry*retry) * time.Second
}

func TestReschedule(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		ctx := context.Background()
		for _, unbounded := range []hermes.Filter{{}, {Metadata: map[string]string{}}, {MinAge: -1}} {
			_, err := c.Reschedule(ctx, unbounded, time.Time{})
			assert.ErrorIs(t, err, hermes.ErrUnboundedFilter)
		}
		waiting := saved(t, c, dueSince(-time.Hour)).ID
		invalid := saved(t, c, func(m *hermes.FailedMessage) { m.Retryable, m.NextAttemptAt = false, nil }).ID
		exhausted := saved(t, c, func(m *hermes.FailedMessage) { m.NextAttemptAt = nil; m.Retries = 3 }).ID
		tooLate := saved(t, c, func(m *hermes.FailedMessage) { m.NotAfter = ptr(ago(time.Hour)) }).ID
		limited := saved(t, c, func(m *hermes.FailedMessage) { m.NotAfter = ptr(ago(-48 * time.Hour)) }).ID
		claimed := saved(t, c).ID
		require.Len(t, gather(t, c, hermes.GatherOptions{Filter: hermes.Filter{IDs: []string{claimed}}}), 1)
		set(t, db, invalid, "claims", 11)
		set(t, db, waiting, "updated_at", ago(time.Hour))
		held := row(t, c, claimed)

		n, err := c.Reschedule(ctx, hermes.Filter{IDs: []string{}}, time.Time{})
		require.NoError(t, err)
		assert.Zero(t, n)

		at := time.Now().Add(24 * time.Hour).Truncate(time.Millisecond).In(time.FixedZone("far", -9*3600))
		n, err = c.Reschedule(ctx, hermes.Everything(), at)
		require.NoError(t, err)
		assert.EqualValues(t, 5, n, "all but the claimed one")
		for _, id := range []string{waiting, invalid, exhausted, tooLate, limited} {
			m := row(t, c, id)
			assert.Equal(t, hermes.StateWaiting, m.State())
			assert.True(t, at.Equal(*m.NextAttemptAt))
			assert.WithinDuration(t, time.Now(), m.UpdatedAt, 10*time.Second)
			assert.Zero(t, m.Claims)
		}
		assert.Nil(t, row(t, c, tooLate).NotAfter)
		assert.NotNil(t, row(t, c, limited).NotAfter)
		assert.Equal(t, 3, row(t, c, exhausted).Retries)
		assert.Equal(t, held, row(t, c, claimed))

		n, err = c.Reschedule(ctx, hermes.Filter{IDs: []string{waiting, exhausted}}, time.Time{})
		require.NoError(t, err)
		assert.EqualValues(t, 2, n)
		assertDueAfter(t, 0, row(t, c, waiting))
		assert.ElementsMatch(t, []string{waiting, exhausted}, idsOf(gather(t, c, hermes.GatherOptions{})))

		n, err = c.Reschedule(ctx, hermes.Filter{IDs: []string{limited}}, ago(-72*time.Hour))
		require.NoError(t, err)
		assert.EqualValues(t, 1, n)
		assert.Nil(t, row(t, c, limited).NotAfter, "it will have passed by then")
		_, err = c.Reschedule(ctx, hermes.Filter{IDs: []string{limited}}, beyond())
		require.NoError(t, err)
		assert.Equal(t, hermes.StateWaiting, row(t, c, limited).State())
	})
}

// TestARescheduledRowOfAUsedUpScheduleGetsOneMoreRetry.
func TestARescheduledRowOfAUsedUpScheduleGetsOneMoreRetry(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		m := saved(t, c, to(newReceiver(t, statuses(503, 503, 200)).URL), func(m *hermes.FailedMessage) {
			m.Schedule, m.Retries, m.NextAttemptAt = []time.Duration{time.Hour}, 1, nil
		})
		for range 2 {
			n, err := c.Reschedule(context.Background(), hermes.Filter{States: []hermes.State{hermes.StateExhausted}}, time.Time{})
			require.NoError(t, err)
			assert.EqualValues(t, 1, n)
			assert.Equal(t, hermes.StateDue, row(t, c, m.ID).State())
			assert.Equal(t, hermes.StateExhausted, fail(t, c, m.ID).State())
		}
		_, err := c.Reschedule(context.Background(), hermes.Everything(), time.Time{})
		require.NoError(t, err)
		resp, err := c.RetryMessage(context.Background(), m)
		require.NoError(t, err)
		assert.True(t, resp.Succeeded())
	}, hermes.WithMaxRetryAttempts(0))
}

func TestAFailedRetryRecordsItsOutcome(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		r := newReceiver(t, statuses(503))
		m := saved(t, c, to(r.URL))
		set(t, db, m.ID, "updated_at", ago(time.Hour))
		m = fail(t, c, m.ID)
		assert.WithinDuration(t, time.Now(), m.UpdatedAt, 10*time.Second)
		assert.Equal(t, 503, m.StatusCode)
		r.Close()
		m = fail(t, c, m.ID)
		assert.Zero(t, m.StatusCode)
		assert.Equal(t, hermes.KindConnect, m.FailureKind)
		assert.Contains(t, m.LastError, "refused")
		assert.Equal(t, 5, m.Attempts)
	}, hermes.WithMaxRetryAttempts(2))
}
