package hermes_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

// withClock opens a PostgreSQL database whose clock is by that much ahead of this process', in a time zone of its own.
func withClock(t *testing.T, dsn string, ahead time.Duration, zone string) *gorm.DB {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	config.RuntimeParams["search_path"] = "public,pg_catalog"
	config.RuntimeParams["timezone"] = zone
	pool := stdlib.OpenDB(*config)
	t.Cleanup(func() { pool.Close() })
	db, err := gorm.Open(postgres.New(postgres.Config{Conn: pool}), &gorm.Config{Logger: logger.Discard})
	require.NoError(t, err)
	exec(t, db, fmt.Sprintf("CREATE OR REPLACE FUNCTION public.statement_timestamp() RETURNS timestamptz STABLE LANGUAGE sql AS "+
		"'SELECT pg_catalog.statement_timestamp() + interval ''%d seconds'''", int(ahead.Seconds())))
	return db
}

// TestFault26_ClocksTenMinutesApart: this process' and the database's. What is due, and for how long a claim lasts, only the
// database's says.
func TestFault26_ClocksTenMinutesApart(t *testing.T) {
	for _, ahead := range []time.Duration{-10 * time.Minute, 10 * time.Minute} {
		t.Run(ahead.String(), func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			dsn := testdb.PostgresDSN(t)
			db := withClock(t, dsn, ahead, "Asia/Kathmandu")
			c := newClient(t, db, hermes.WithMaxRetryAttempts(1))
			other := newClient(t, withClock(t, dsn, ahead, "America/St_Johns"), hermes.WithInstanceID("another"))
			database := func() time.Time { return time.Now().Add(ahead) }

			r := newReceiver(t, statuses(503))
			resp, err := c.SendMessage(post(t, r.URL, "x"))
			require.NoError(t, err)
			m := row(t, other, resp.FailedMessageID)
			assert.WithinDuration(t, database(), m.CreatedAt, 20*time.Second)
			assert.WithinDuration(t, database(), *m.NextAttemptAt, 20*time.Second)

			msgs := gather(t, c, hermes.GatherOptions{})
			require.Len(t, msgs, 1, "due at once")
			assert.WithinDuration(t, database().Add(time.Minute), *msgs[0].ClaimedUntil, 20*time.Second)
			assert.Empty(t, gather(t, other, hermes.GatherOptions{}), "claimed")
			_, err = other.RetryMessage(ctx, m)
			assert.ErrorIs(t, err, hermes.ErrClaimed)
			resp, err = c.RetryMessage(ctx, msgs[0])
			require.NoError(t, err)
			assert.Equal(t, 503, resp.StatusCode, "there was time for an attempt")
			assert.Empty(t, gather(t, other, hermes.GatherOptions{}), "not due yet")
			assert.Zero(t, retryAll(t, other, hermes.RetryOptions{}))
			assert.WithinDuration(t, database().Add(time.Minute), *row(t, c, m.ID).NextAttemptAt, 20*time.Second)

			// A claim ends when the database says so.
			n, err := c.Reschedule(ctx, hermes.Everything(), time.Time{})
			require.NoError(t, err)
			assert.EqualValues(t, 1, n)
			held := gather(t, c, hermes.GatherOptions{})
			require.Len(t, held, 1)
			set(t, db, m.ID, "claimed_until", database().Add(-time.Second))
			require.Len(t, gather(t, other, hermes.GatherOptions{}), 1)
			_, err = c.RetryMessage(ctx, held[0])
			assert.ErrorIs(t, err, hermes.ErrClaimed)
			set(t, db, m.ID, "claimed_until", database().Add(-time.Second))

			for i := range 50 {
				_, err := c.Enqueue(ctx, nil, post(t, fmt.Sprintf("%s/%d", r.URL, i), "x"), time.Time{})
				require.NoError(t, err)
			}
			r.answer = func(int, http.ResponseWriter, *http.Request) {}
			assert.Equal(t, hermes.RetrySummary{Delivered: 51}, retryAll(t, c, hermes.RetryOptions{}))
		})
	}
}

// TestFault26_OtherTimeZones: of the sessions, and of the times that callers give.
func TestFault26_OtherTimeZones(t *testing.T) {
	eachDSN(t, func(t *testing.T, dsn string) {
		zoned := map[bool]func(zone string) string{
			true:  func(zone string) string { return withParam(dsn, "timezone="+zone) },
			false: func(zone string) string { return withParam(dsn, "_loc="+zone) },
		}[testdb.Open(t, dsn).Name() == "postgres"]
		east := newClient(t, testdb.Open(t, zoned("Pacific/Kiritimati")), hermes.WithInstanceID("east"))
		west := newClient(t, testdb.Open(t, zoned("Pacific/Pago_Pago")), hermes.WithInstanceID("west"))
		far := time.FixedZone("far", -11*60*60)
		var want []string
		for i := range 4 {
			m := sample(dueSince(time.Hour - time.Duration(i)*time.Minute))
			*m.NextAttemptAt = m.NextAttemptAt.In([]*time.Location{far, time.UTC}[i%2])
			require.NoError(t, []*hermes.Client{east, west}[i%2].Save(context.Background(), m))
			want = append(want, m.ID)
			got := row(t, west, m.ID)
			assert.True(t, m.NextAttemptAt.Equal(*got.NextAttemptAt))
			assert.Equal(t, time.UTC, got.NextAttemptAt.Location())
			assert.WithinDuration(t, time.Now(), got.CreatedAt, 20*time.Second)
		}
		saved(t, east, dueSince(-time.Minute))
		got := idsOf(gather(t, west, hermes.GatherOptions{Limit: 2}))
		got = append(got, idsOf(gather(t, east, hermes.GatherOptions{}))...)
		assert.Equal(t, want, got, "in the order in which they were due, what is not due left out")
		assert.Empty(t, gather(t, west, hermes.GatherOptions{}), "all are claimed")
		assert.EqualValues(t, 5, count(t, west, hermes.Filter{CreatedAfter: time.Now().In(far).Add(-time.Minute)}))
	})
}

func TestFault27_OneRowAndTwoWhoRetryIt(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		ctx := context.Background()
		arrived, answer := make(chan struct{}), make(chan struct{})
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			close(arrived)
			<-answer
		})
		saved(t, c, to(r.URL))
		held := gather(t, c, hermes.GatherOptions{})[0]
		var group sync.WaitGroup
		group.Go(func() {
			resp, err := c.RetryMessage(ctx, held)
			if assert.NoError(t, err) {
				assert.True(t, resp.Succeeded())
			}
		})
		<-arrived
		other := newClient(t, db, hermes.WithInstanceID("another"))
		for _, m := range []*hermes.FailedMessage{held, lookedAt(held), {ID: held.ID}} {
			for _, client := range []*hermes.Client{c, other} {
				resp, err := client.RetryMessage(ctx, m)
				assert.ErrorIs(t, err, hermes.ErrClaimed)
				assert.Nil(t, resp)
			}
		}
		close(answer)
		group.Wait()
		assert.Len(t, r.received(), 1)
		_, err := c.RetryMessage(ctx, held)
		assert.ErrorIs(t, err, hermes.ErrNotFound)
		invalid := saved(t, c, func(m *hermes.FailedMessage) { m.Retryable, m.NextAttemptAt = false, nil })
		_, err = c.RetryMessage(ctx, invalid)
		assert.ErrorIs(t, err, hermes.ErrNotRetryable)
		assert.Equal(t, invalid, row(t, c, invalid.ID))
	}, hermes.WithRequestTimeout(30*time.Second))
}
