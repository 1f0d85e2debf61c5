package hermes_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

// retryAll makes a pass that ends as it should.
func retryAll(t testing.TB, c *hermes.Client, o hermes.RetryOptions) hermes.RetrySummary {
	t.Helper()
	sum, err := c.RetryAll(context.Background(), o)
	require.NoError(t, err)
	assert.Positive(t, sum.Elapsed)
	sum.Elapsed = 0
	return sum
}

func TestRetryAllDeliversWhatIsDue(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		r := newReceiver(t, func(_ int, w http.ResponseWriter, req *http.Request) {
			switch req.URL.Path {
			case "/bad":
				w.WriteHeader(400)
			case "/down":
				w.WriteHeader(503)
			}
		})
		first := saved(t, c, to(r.URL+"/good"))
		multiply(t, db, first.ID, 999)
		bad := saved(t, c, to(r.URL+"/bad"))
		down := saved(t, c, to(r.URL+"/down"))
		later := saved(t, c, to(r.URL+"/later"), dueSince(-time.Hour))

		sum := retryAll(t, c, hermes.RetryOptions{BatchSize: 100})

		assert.Equal(t, hermes.RetrySummary{Delivered: 1000, Failed: 1, Invalid: 1}, sum)
		assert.Len(t, r.received(), 1002, "each once")
		assert.EqualValues(t, 3, count(t, c, hermes.Filter{}))
		assert.Equal(t, hermes.StateInvalid, row(t, c, bad.ID).State())
		assert.Equal(t, later.NextAttemptAt, row(t, c, later.ID).NextAttemptAt)
		failed := row(t, c, down.ID)
		assert.Equal(t, hermes.StateWaiting, failed.State())
		assert.Equal(t, 1, failed.Retries)
		assert.Equal(t, 2, failed.Attempts)
		assert.Equal(t, 503, failed.StatusCode)
		assert.Len(t, failed.AttemptLog, 1)
		assert.Zero(t, failed.Claims)
		assert.Empty(t, failed.ClaimedBy)
		assert.WithinDuration(t, time.Now().Add(time.Minute), *failed.NextAttemptAt, 30*time.Second)
	})
}

func TestRetryAllSendsEachRowOnceHoweverSoonItIsDueAgain(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		r := newReceiver(t, statuses(503))
		first := saved(t, c, to(r.URL))
		multiply(t, db, first.ID, 299)
		sum := retryAll(t, c, hermes.RetryOptions{BatchSize: 10})
		assert.Equal(t, hermes.RetrySummary{Failed: 300}, sum)
		assert.Len(t, r.received(), 300)
		for msg, err := range c.Monitor().All(context.Background(), hermes.Filter{}) {
			require.NoError(t, err)
			assert.Equal(t, 1, msg.Retries)
		}
	}, hermes.WithRedeliveryBackoff(hermes.ConstantBackoff(0)))
}

func TestRetryAllGivesADeadHostUp(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		r := newReceiver(t, statuses(200))
		dead := newReceiver(t, statuses(200))
		dead.Close()
		first := saved(t, c, to(dead.URL), dueSince(2*time.Hour))
		multiply(t, db, first.ID, 2999)
		for i := range 20 {
			saved(t, c, to(fmt.Sprintf("%s/%d", r.URL, i)), dueSince(time.Hour))
		}
		sum := retryAll(t, c, hermes.RetryOptions{BatchSize: 200, PerHost: 4})
		assert.EqualValues(t, 20, sum.Delivered)
		assert.LessOrEqual(t, sum.Failed, int64(5+4), "nothing more is sent to it")
		assert.GreaterOrEqual(t, sum.Failed, int64(5))
		assert.Positive(t, sum.Released)
		unsent, err := c.Monitor().Count(context.Background(), hermes.Filter{States: []hermes.State{hermes.StateDue}})
		require.NoError(t, err)
		assert.EqualValues(t, 3000-sum.Failed, unsent, "given back")
		for msg, err := range c.Monitor().All(context.Background(), hermes.Filter{States: []hermes.State{hermes.StateDue}}) {
			require.NoError(t, err)
			assert.Equal(t, 1, msg.Attempts)
			assert.Zero(t, msg.Retries+msg.Claims)
		}
	})
}

func TestRetryAllLooksAheadOfABusyHost(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		others := make(chan struct{}, 100)
		slow := newReceiver(t, func(_ int, _ http.ResponseWriter, req *http.Request) {
			select { // it answers when all others have been sent to
			case <-others:
			case <-req.Context().Done():
			}
		})
		first := saved(t, c, to(slow.URL), dueSince(2*time.Hour))
		multiply(t, db, first.ID, 999)
		r := newReceiver(t, func(n int, _ http.ResponseWriter, _ *http.Request) {
			if n == 20 {
				close(others)
			}
		})
		for range 20 {
			saved(t, c, to(r.URL), dueSince(time.Hour))
		}
		sum := retryAll(t, c, hermes.RetryOptions{BatchSize: 50, PerHost: 2, Concurrency: 8})
		assert.Equal(t, hermes.RetrySummary{Delivered: 1020}, sum)
	}, hermes.WithRequestTimeout(30*time.Second))
}

func TestRetryAllKeepsToARate(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		r := newReceiver(t, statuses(200))
		first := saved(t, c, to(r.URL))
		multiply(t, db, first.ID, 19)
		start := time.Now()
		sum := retryAll(t, c, hermes.RetryOptions{RatePerHost: 100})
		assert.EqualValues(t, 20, sum.Delivered)
		assert.GreaterOrEqual(t, time.Since(start), 190*time.Millisecond, "20 attempts, 10 ms apart")
	})
}

func TestRetryAllEndsWithItsContext(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		ctx, cancel := context.WithCancel(context.Background())
		r := newReceiver(t, func(n int, w http.ResponseWriter, req *http.Request) {
			if n == 4 {
				cancel()
			}
			<-req.Context().Done()
		})
		first := saved(t, c, to(r.URL))
		multiply(t, db, first.ID, 499)
		sum, err := c.RetryAll(ctx, hermes.RetryOptions{PerHost: 4})
		require.ErrorIs(t, err, context.Canceled)
		assert.EqualValues(t, 4, sum.Failed)
		assert.Positive(t, sum.Released)
		assert.EqualValues(t, 500, count(t, c, hermes.Filter{States: []hermes.State{hermes.StateDue}}), "none is claimed, none has used up a step")
		assert.EqualValues(t, 4, count(t, c, hermes.Filter{FailureKinds: []hermes.FailureKind{hermes.KindCanceled}}))
	}, hermes.WithRequestTimeout(30*time.Second))
}

func TestRetryAllEndsWithShutdown(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		begun, answer := make(chan struct{}), make(chan struct{})
		r := newReceiver(t, func(n int, _ http.ResponseWriter, _ *http.Request) {
			if n == 4 {
				close(begun)
			}
			<-answer
		})
		first := saved(t, c, to(r.URL))
		multiply(t, db, first.ID, 499)
		type result struct {
			sum hermes.RetrySummary
			err error
		}
		done := make(chan result, 1)
		go func() {
			sum, err := c.RetryAll(context.Background(), hermes.RetryOptions{PerHost: 4})
			done <- result{sum, err}
		}()
		<-begun
		down := make(chan error, 1)
		go func() { down <- c.Shutdown(context.Background()) }()
		for { // until Shutdown has begun
			if _, err := c.GatherFailedMessagesForRetry(context.Background(), hermes.GatherOptions{Filter: hermes.Filter{IDs: []string{}}}); err != nil {
				break
			}
		}
		close(answer)
		require.NoError(t, <-down)
		ended := <-done
		require.ErrorIs(t, ended.err, hermes.ErrShutdown)
		assert.GreaterOrEqual(t, ended.sum.Delivered, int64(4))
		assert.EqualValues(t, 500-ended.sum.Delivered, count(t, c, hermes.Filter{States: []hermes.State{hermes.StateDue}}))
	}, hermes.WithRequestTimeout(30*time.Second))
}

func TestRetryAllReportsProgress(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		r := newReceiver(t, statuses(200))
		first := saved(t, c, to(r.URL))
		multiply(t, db, first.ID, 99)
		var last hermes.RetrySummary
		sum, err := c.RetryAll(context.Background(), hermes.RetryOptions{Progress: func(s hermes.RetrySummary) {
			assert.GreaterOrEqual(t, s.Delivered, last.Delivered)
			last = s
			panic("changes nothing")
		}})
		require.NoError(t, err)
		assert.Equal(t, sum, last)
		assert.EqualValues(t, 100, sum.Delivered)
	})
}

func TestRetryAllRefusesBadOptions(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		_, err := c.RetryAll(context.Background(), hermes.RetryOptions{Concurrency: -1, PerHost: -2, BatchSize: -3, RatePerHost: -4})
		require.ErrorIs(t, err, hermes.ErrInvalidOption)
		for _, name := range []string{"Concurrency", "PerHost", "BatchSize", "RatePerHost"} {
			assert.ErrorContains(t, err, name)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err = c.RetryAll(ctx, hermes.RetryOptions{})
		assert.ErrorIs(t, err, context.Canceled)
		require.NoError(t, c.Shutdown(context.Background()))
		_, err = c.RetryAll(context.Background(), hermes.RetryOptions{})
		assert.ErrorIs(t, err, hermes.ErrShutdown)
	})
}

func TestRetryAllTakesSuspectsLastAndAlone(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		r := newReceiver(t, statuses(200))
		for i := range 3 {
			msg := saved(t, c, to(fmt.Sprintf("%s/suspect/%d", r.URL, i)), dueSince(2*time.Hour-time.Duration(i)*time.Minute))
			set(t, db, msg.ID, "claims", 5)
		}
		first := saved(t, c, to(r.URL+"/fine"), dueSince(time.Hour))
		multiply(t, db, first.ID, 49)
		sum := retryAll(t, c, hermes.RetryOptions{})
		assert.EqualValues(t, 53, sum.Delivered)
		got := r.received()
		require.Len(t, got, 53)
		for i := range 3 {
			assert.Equal(t, fmt.Sprintf("/suspect/%d", i), got[50+i].URL)
		}
	})
}

// TestRetryAllEndsThoughASlowHostHasSuspectsOnly: a claim of a slow host's rows brought nothing to send but suspects, which
// are put aside, and the pass waited for more for ever.
func TestRetryAllEndsThoughASlowHostHasSuspectsOnly(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		r := newReceiver(t, func(int, http.ResponseWriter, *http.Request) { <-time.After(100 * time.Millisecond) })
		for i := range 32 {
			msg := saved(t, c, to(r.URL), dueSince(time.Hour-time.Duration(i)*time.Second))
			if i >= 24 {
				set(t, db, msg.ID, "claims", 5)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		sum, err := c.RetryAll(ctx, hermes.RetryOptions{BatchSize: 50, PerHost: 2})
		require.NoError(t, err)
		assert.EqualValues(t, 32, sum.Delivered)
	})
}
