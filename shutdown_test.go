package hermes_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

// outcome is what a call of SendMessage returned.
type outcome struct {
	resp *hermes.Response
	err  error
}

// sendAll sends n messages at once and returns their outcomes when all have returned.
func sendAll(t *testing.T, c *hermes.Client, url string, n int) func() []outcome {
	all := make([]outcome, n)
	var wg sync.WaitGroup
	for i := range n {
		req := post(t, url, "x")
		wg.Go(func() { all[i].resp, all[i].err = c.SendMessage(req) })
	}
	return func() []outcome { wg.Wait(); return all }
}

func TestFault18_ShutdownMakesWaitingMessagesRows(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		const n = 100
		var answered sync.WaitGroup
		answered.Add(n)
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(503)
			answered.Done()
		})
		outcomes := sendAll(t, c, r.URL, n)
		answered.Wait() // all have failed once; by now they wait for an hour, or are about to

		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		require.NoError(t, c.Shutdown(ctx))

		assert.EqualValues(t, n, count(t, c, hermes.Filter{}), "all are rows when Shutdown returns")
		for _, o := range outcomes() {
			require.NoError(t, o.err)
			assert.NotEmpty(t, o.resp.FailedMessageID)
			assert.ErrorIs(t, o.resp.Err(), hermes.ErrShutdown)
			assert.Equal(t, 1, o.resp.Attempts)
		}
		require.NoError(t, c.Shutdown(ctx), "a second one is harmless")
		assert.Len(t, r.received(), n)
	}, hermes.WithRetryInterval(time.Hour))
}

func TestShutdownRefusesWhatIsNew(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		ctx := context.Background()
		r := newReceiver(t, statuses(503))
		_, err := c.SendMessage(post(t, r.URL, "x"))
		require.NoError(t, err)
		msg := only(t, c)
		sent := len(r.received())
		require.NoError(t, c.Shutdown(ctx))

		_, err = c.SendMessage(post(t, r.URL, "x"))
		assert.ErrorIs(t, err, hermes.ErrShutdown)
		_, err = c.Transport().RoundTrip(post(t, r.URL, "x"))
		assert.ErrorIs(t, err, hermes.ErrShutdown)
		_, err = c.GatherFailedMessagesForRetry(ctx, hermes.GatherOptions{})
		assert.ErrorIs(t, err, hermes.ErrShutdown)
		_, err = c.RetryMessage(ctx, msg)
		assert.ErrorIs(t, err, hermes.ErrShutdown)
		assert.Len(t, r.received(), sent)
		assert.EqualValues(t, 1, count(t, c, hermes.Filter{}), "the monitor goes on working")
	})
}

func TestShutdownLetsAttemptsInFlightFinish(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		arrived, answer := make(chan struct{}), make(chan struct{})
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			close(arrived)
			<-answer
		})
		outcomes := sendAll(t, c, r.URL, 1)
		<-arrived
		done := make(chan error)
		go func() { done <- c.Shutdown(context.Background()) }()
		for { // until Shutdown has begun
			if _, err := c.GatherFailedMessagesForRetry(context.Background(), hermes.GatherOptions{}); err != nil {
				break
			}
		}
		select {
		case err := <-done:
			t.Fatal("Shutdown did not wait: ", err)
		default:
		}
		close(answer)
		require.NoError(t, <-done)
		assert.True(t, outcomes()[0].resp.Succeeded())
	}, hermes.WithRequestTimeout(30*time.Second), hermes.WithClaimTTL(time.Minute))
}

func TestShutdownCancelsAndSavesInTimeForItsDeadline(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		arrived, release := make(chan struct{}), make(chan struct{})
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			close(arrived)
			<-release
		})
		defer close(release)
		outcomes := sendAll(t, c, r.URL, 1)
		<-arrived
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		defer cancel()

		require.NoError(t, c.Shutdown(ctx))

		o := outcomes()[0]
		require.NoError(t, o.err)
		assert.ErrorIs(t, o.resp.Err(), hermes.ErrShutdown)
		msg := only(t, c)
		assert.Equal(t, hermes.KindCanceled, msg.FailureKind)
		assert.Equal(t, hermes.StateDue, msg.State())
	}, hermes.WithRequestTimeout(time.Minute), hermes.WithClaimTTL(2*time.Minute))
}

func TestShutdownThatIsCanceledSaysSo(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		arrived, release := make(chan struct{}), make(chan struct{})
		c2 := c
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			close(arrived)
			<-release
		})
		defer close(release)
		outcomes := sendAll(t, c2, r.URL, 1)
		<-arrived
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := c.Shutdown(ctx); err != nil {
			assert.Equal(t, context.Canceled, err)
		}
		require.NoError(t, outcomes()[0].err, "it is saved all the same")
		require.NoError(t, c.Shutdown(context.Background()))
		assert.EqualValues(t, 1, count(t, c, hermes.Filter{}))
	}, hermes.WithRequestTimeout(time.Minute), hermes.WithClaimTTL(2*time.Minute))
}

func TestShutdownEndsARetryThatWaits(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		answered := make(chan struct{}, 10)
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(503)
			answered <- struct{}{}
		})
		sender := newClient(t, db, hermes.WithMaxRetryAttempts(0))
		_, err := sender.SendMessage(post(t, r.URL, "x"))
		require.NoError(t, err)
		<-answered
		msgs, err := c.GatherFailedMessagesForRetry(context.Background(), hermes.GatherOptions{})
		require.NoError(t, err)
		require.Len(t, msgs, 1)
		var resp *hermes.Response
		done := make(chan error)
		go func() {
			var err error
			resp, err = c.RetryMessage(context.Background(), msgs[0])
			done <- err
		}()
		<-answered
		require.NoError(t, c.Shutdown(context.Background()))
		require.NoError(t, <-done)
		assert.ErrorIs(t, resp.Err(), hermes.ErrShutdown)
		msg := only(t, c)
		assert.Equal(t, hermes.StateDue, msg.State(), "the claim is freed, and no step of the schedule used up")
		assert.Equal(t, 2, msg.Attempts)
		assert.Zero(t, msg.Retries)
	}, hermes.WithRetryInterval(time.Hour))
}
