package hermes_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

// script is a RoundTripper without a network, for tests in fake time: it notes when each attempt came, and answers.
type script struct {
	mu     sync.Mutex
	start  time.Time
	at     []time.Duration
	answer func(n int, req *http.Request) (*http.Response, error) // n counts from 1
}

func (s *script) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		io.Copy(io.Discard, req.Body)
		req.Body.Close()
	}
	s.mu.Lock()
	s.at = append(s.at, time.Since(s.start))
	n := len(s.at)
	s.mu.Unlock()
	return s.answer(n, req)
}

func answerOf(status int, header ...string) *http.Response {
	resp := &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody}
	for i := 0; i < len(header); i += 2 {
		resp.Header.Add(header[i], header[i+1])
	}
	return resp
}

func always(status int, header ...string) func(int, *http.Request) (*http.Response, error) {
	return func(int, *http.Request) (*http.Response, error) { return answerOf(status, header...), nil }
}

// hang answers nothing until the attempt is over.
func hang(_ int, req *http.Request) (*http.Response, error) {
	<-req.Context().Done()
	return nil, req.Context().Err()
}

func seconds(s ...float64) []time.Duration {
	all := make([]time.Duration, len(s))
	for i := range s {
		all[i] = time.Duration(s[i] * float64(time.Second))
	}
	return all
}

// TestWaits runs SendMessage in fake time and looks at when its attempts came, and when it returned.
func TestWaits(t *testing.T) {
	t.Parallel()
	type testCase struct {
		name     string
		opts     []hermes.Option
		send     []hermes.SendOption
		timeout  time.Duration // of the caller's context; 0: none
		cancelAt time.Duration // of the caller's context; 0: never
		answer   func(int, *http.Request) (*http.Response, error)
		attempts []time.Duration
		returned time.Duration
		kind     hermes.FailureKind
		is       error
	}
	for _, test := range []testCase{
		{
			name: "the defaults: six requests, ten seconds apart", answer: always(503),
			attempts: seconds(0, 10, 20, 30, 40, 50), returned: 50 * time.Second, kind: hermes.KindStatus,
		}, {
			name: "no answer is waited after as well", answer: func(int, *http.Request) (*http.Response, error) {
				return nil, errors.New("refused")
			},
			attempts: seconds(0, 10, 20, 30, 40, 50), returned: 50 * time.Second, kind: hermes.KindOther,
		}, {
			name: "the default timeout of five seconds, per attempt", answer: hang,
			attempts: seconds(0, 15, 30, 45, 60, 75), returned: 80 * time.Second, kind: hermes.KindTimeout,
			is: context.DeadlineExceeded,
		}, {
			name: "attempts, interval and timeout as set", answer: hang,
			opts: []hermes.Option{hermes.WithMaxRetryAttempts(2), hermes.WithRetryInterval(time.Second),
				hermes.WithRequestTimeout(2 * time.Second)},
			attempts: seconds(0, 3, 6), returned: 8 * time.Second, kind: hermes.KindTimeout,
		}, {
			name: "the http.Client's own timeout, if shorter", answer: hang,
			opts:     []hermes.Option{hermes.WithMaxRetryAttempts(1)},
			attempts: seconds(0, 13), returned: 16 * time.Second, kind: hermes.KindTimeout,
		}, {
			name: "no retries", answer: always(503), opts: []hermes.Option{hermes.WithMaxRetryAttempts(0)},
			attempts: seconds(0), kind: hermes.KindStatus,
		}, {
			name: "a backoff gets the retry's number, from 1", answer: always(503),
			opts:     []hermes.Option{hermes.WithBackoff(linear(time.Second))},
			attempts: seconds(0, 1, 3, 6, 10, 15), returned: 15 * time.Second, kind: hermes.KindStatus,
		}, {
			name: "a negative backoff is none", answer: always(503),
			opts:     []hermes.Option{hermes.WithBackoff(linear(-time.Second))},
			attempts: seconds(0, 0, 0, 0, 0, 0), kind: hermes.KindStatus,
		}, {
			name: "a 4xx is not retried", answer: always(404), attempts: seconds(0), kind: hermes.KindStatus,
		}, {
			name: "what is to be retried later is not waited for", answer: always(503),
			opts:     []hermes.Option{hermes.WithPolicy(func(hermes.Attempt) hermes.Outcome { return hermes.RetryLater })},
			attempts: seconds(0), kind: hermes.KindStatus,
		}, {
			name: "an unknown outcome counts as retryable", answer: always(404),
			opts: []hermes.Option{hermes.WithMaxRetryAttempts(1),
				hermes.WithPolicy(func(hermes.Attempt) hermes.Outcome { return 99 })},
			attempts: seconds(0, 10), returned: 10 * time.Second, kind: hermes.KindStatus,
		}, {
			name: "a Retry-After is a floor", answer: always(503, "Retry-After", "25"),
			opts:     []hermes.Option{hermes.WithMaxRetryAttempts(2)},
			attempts: seconds(0, 25, 50), returned: 50 * time.Second, kind: hermes.KindStatus,
		}, {
			name: "a Retry-After shorter than the interval changes nothing", answer: always(503, "Retry-After", "3"),
			opts:     []hermes.Option{hermes.WithMaxRetryAttempts(1)},
			attempts: seconds(0, 10), returned: 10 * time.Second, kind: hermes.KindStatus,
		}, {
			name: "the longest Retry-After that is waited for", answer: always(503, "Retry-After", "60"),
			opts:     []hermes.Option{hermes.WithMaxRetryAttempts(1)},
			attempts: seconds(0, 60), returned: 60 * time.Second, kind: hermes.KindStatus,
		}, {
			name: "a longer one is not", answer: always(503, "Retry-After", "61"),
			attempts: seconds(0), kind: hermes.KindStatus,
		}, {
			name: "fault 17: a wait that the deadline cannot outlast is not begun", answer: always(503),
			timeout: 29 * time.Second, attempts: seconds(0, 10, 20), returned: 20 * time.Second, kind: hermes.KindStatus,
		}, {
			name: "fault 17: nor one that ends with it", answer: always(503),
			timeout: 20 * time.Second, attempts: seconds(0, 10), returned: 10 * time.Second, kind: hermes.KindStatus,
		}, {
			name: "fault 17: canceled during a wait", answer: always(503),
			cancelAt: 14 * time.Second, attempts: seconds(0, 10), returned: 14 * time.Second, kind: hermes.KindStatus,
			is: context.Canceled,
		}, {
			name: "fault 17: canceled during an attempt", answer: hang,
			cancelAt: 17 * time.Second, attempts: seconds(0, 15), returned: 17 * time.Second, kind: hermes.KindCanceled,
			is: context.Canceled,
		}, {
			name: "fault 17: the deadline passes during an attempt", answer: hang,
			timeout: 17 * time.Second, attempts: seconds(0, 15), returned: 17 * time.Second, kind: hermes.KindCanceled,
			is: context.DeadlineExceeded,
		}, {
			name: "NotAfter: no attempt from then on", answer: always(503),
			send:     []hermes.SendOption{hermes.NotAfter(epoch.Add(20 * time.Second))},
			attempts: seconds(0, 10), returned: 10 * time.Second, kind: hermes.KindStatus,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			db := testdb.SQLite(t) // outside the bubble; nothing is saved
			synctest.Test(t, func(t *testing.T) {
				s := &script{start: time.Now(), answer: test.answer}
				client := &http.Client{Transport: s}
				if strings.HasPrefix(test.name, "the http.Client's") {
					client.Timeout = 3 * time.Second
				}
				c, err := hermes.New(db, append(test.opts, hermes.WithHTTPClient(client))...)
				require.NoError(t, err)
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				if test.timeout > 0 {
					ctx, cancel = context.WithTimeout(ctx, test.timeout)
					defer cancel()
				}
				if test.cancelAt > 0 {
					time.AfterFunc(test.cancelAt, cancel)
				}
				req := post(t, "http://receiver.example/", "x").WithContext(ctx)

				resp, err := c.SendMessage(req, append(test.send, hermes.SaveOnFailure(false))...)

				var failure *hermes.SendError
				require.ErrorAs(t, err, &failure)
				assert.Equal(t, test.attempts, s.at)
				assert.Equal(t, test.returned, time.Since(s.start))
				assert.Equal(t, len(test.attempts), resp.Attempts)
				assert.Equal(t, len(test.attempts), failure.Attempts)
				assert.Equal(t, test.kind, failure.Kind)
				if test.is != nil {
					assert.ErrorIs(t, err, test.is)
				}
			})
		})
	}
}

// epoch is when synctest's clock starts.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// linear waits longer by as much each time.
type linear time.Duration

func (l linear) Delay(retry int) time.Duration { return time.Duration(retry) * time.Duration(l) }

func TestFault17_CanceledBeforeTheFirstAttempt(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		r := newReceiver(t, statuses(200))
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(errors.New("the user left"))

		resp, err := c.SendMessage(post(t, r.URL, "x").WithContext(ctx))

		assert.Equal(t, context.Canceled, err)
		assert.Nil(t, resp)
		assert.Empty(t, r.received())
		assert.Zero(t, count(t, c, hermes.Filter{}))

		_, err = c.Transport().RoundTrip(post(t, r.URL, "x").WithContext(ctx))
		assert.Equal(t, context.Canceled, err)
		assert.Empty(t, r.received())
	})
}

func TestFault17_CanceledAfterTheFirstAttemptIsSaved(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		ctx, cancel := context.WithCancel(context.Background())
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(503)
			cancel()
		})

		resp, err := c.SendMessage(post(t, r.URL, "x").WithContext(ctx))

		require.NoError(t, err)
		assert.NotEmpty(t, resp.FailedMessageID)
		assert.ErrorIs(t, resp.Err(), context.Canceled)
		assert.Equal(t, hermes.StateDue, only(t, c).State())
		assert.Len(t, r.received(), 1)
	}, hermes.WithRetryInterval(time.Hour))
}

func TestFault17_ALongWaitIsHandedToTheTable(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7200")
			w.WriteHeader(503)
		})
		resp, err := c.SendMessage(post(t, r.URL, "x"))
		require.NoError(t, err)
		assert.Equal(t, 1, resp.Attempts)
		msg := only(t, c)
		assert.Equal(t, hermes.StateWaiting, msg.State())
		assert.InDelta(t, 2*time.Hour, msg.NextAttemptAt.Sub(msg.CreatedAt), float64(time.Second))
	})
}
