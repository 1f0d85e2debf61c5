package hermes_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

func TestDefaultPolicyByStatus(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]hermes.Outcome{
		200: hermes.Delivered, 204: hermes.Delivered, 299: hermes.Delivered,
		300: hermes.Invalid, 301: hermes.Invalid, 304: hermes.Invalid, 308: hermes.Invalid, 399: hermes.Invalid,
		400: hermes.Invalid, 404: hermes.Invalid, 408: hermes.Invalid, 429: hermes.Invalid, 499: hermes.Invalid,
		500: hermes.Retryable, 501: hermes.Retryable, 503: hermes.Retryable, 599: hermes.Retryable,
		600: hermes.Retryable, 999: hermes.Retryable, 0: hermes.Retryable, 100: hermes.Retryable, 199: hermes.Retryable,
		-1: hermes.Retryable, math.MaxInt: hermes.Retryable, math.MinInt: hermes.Retryable,
	} {
		assert.Equal(t, want, hermes.DefaultPolicy(hermes.Attempt{StatusCode: status}), "%d", status)
	}
}

func TestDefaultPolicyWithoutAnswer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		want hermes.Outcome
	}{
		{nil, hermes.Retryable},
		{errors.New("EOF"), hermes.Retryable},
		{context.DeadlineExceeded, hermes.Retryable},
		{&net.DNSError{IsNotFound: true}, hermes.RetryLater},
		{&net.DNSError{IsTemporary: true}, hermes.Retryable},
		{fmt.Errorf("dial: %w", &net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}}), hermes.RetryLater},
		{&tls.CertificateVerificationError{Err: errors.New("expired")}, hermes.RetryLater},
	} {
		assert.Equal(t, test.want, hermes.DefaultPolicy(hermes.Attempt{Err: test.err}), "%v", test.err)
		assert.Equal(t, hermes.Retryable, hermes.DefaultPolicy(hermes.Attempt{StatusCode: 503, Err: test.err}), "%v", test.err)
	}
}

func TestRetryStatus(t *testing.T) {
	t.Parallel()
	codes := []int{408, 429}
	policy := hermes.RetryStatus(hermes.DefaultPolicy, codes...)
	codes[0] = 404
	for status, want := range map[int]hermes.Outcome{408: hermes.Retryable, 429: hermes.Retryable, 404: hermes.Invalid,
		425: hermes.Invalid, 503: hermes.Retryable, 200: hermes.Delivered} {
		assert.Equal(t, want, policy(hermes.Attempt{StatusCode: status}), "%d", status)
	}
}

func FuzzDefaultPolicy(f *testing.F) {
	for _, status := range []int{0, 99, 200, 302, 404, 503, 999, -1} {
		f.Add(status, true)
	}
	f.Fuzz(func(t *testing.T, status int, unknownHost bool) {
		got := hermes.DefaultPolicy(hermes.Attempt{StatusCode: status, Err: &net.DNSError{IsNotFound: unknownHost}})
		switch status / 100 {
		case 2:
			assert.Equal(t, hermes.Delivered, got)
		case 3, 4:
			assert.Equal(t, hermes.Invalid, got)
		default:
			if want := status == 0 && unknownHost; (got == hermes.RetryLater) != want || !want && got != hermes.Retryable {
				t.Fatalf("%d: %v", status, got)
			}
		}
	})
}

func TestConstantBackoff(t *testing.T) {
	t.Parallel()
	b := hermes.ConstantBackoff(7 * time.Second)
	for retry := range 3 {
		assert.Equal(t, 7*time.Second, b.Delay(retry+1))
	}
}

func TestExponentialBackoffIsFullJitterBelowADoublingBound(t *testing.T) {
	t.Parallel()
	b := hermes.ExponentialBackoff(100*time.Millisecond, time.Second)
	for retry, bound := range map[int]time.Duration{1: 100 * time.Millisecond, 2: 200 * time.Millisecond,
		3: 400 * time.Millisecond, 4: 800 * time.Millisecond, 5: time.Second, 6: time.Second, 1 << 40: time.Second} {
		var longest, shortest = time.Duration(0), bound
		for range 500 {
			delay := b.Delay(retry)
			longest, shortest = max(longest, delay), min(shortest, delay)
		}
		assert.LessOrEqual(t, longest, bound, "retry %d", retry)
		assert.Greater(t, longest, bound*9/10, "retry %d", retry)
		assert.Less(t, shortest, bound/10, "retry %d: jitter begins at nothing", retry)
	}
}

func TestExponentialBackoffOfOddValues(t *testing.T) {
	t.Parallel()
	assert.Zero(t, hermes.ExponentialBackoff(0, time.Second).Delay(3))
	assert.Zero(t, hermes.ExponentialBackoff(-time.Second, time.Second).Delay(3))
	assert.LessOrEqual(t, hermes.ExponentialBackoff(time.Hour, time.Second).Delay(1), time.Second)
	assert.GreaterOrEqual(t, hermes.ExponentialBackoff(1, math.MaxInt64).Delay(1000), time.Duration(0), "does not overflow")
}

func TestOutcomeString(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "delivered invalid retryable retry later retryable", fmt.Sprint(hermes.Delivered, " ", hermes.Invalid, " ",
		hermes.Retryable, " ", hermes.RetryLater, " ", hermes.Outcome(0)))
}

// TestNoAnswerIsNoDelivery: a policy that said so lost the message, with a nil error.
func TestNoAnswerIsNoDelivery(t *testing.T) {
	everythingIsFine := func(hermes.Attempt) hermes.Outcome { return hermes.Delivered }
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		r := newReceiver(t, statuses(409))
		resp, err := c.SendMessage(post(t, r.URL, "x"))
		require.NoError(t, err)
		assert.True(t, resp.Succeeded(), "another status may be one")
		assert.NoError(t, resp.Err())
		r.Close()
		resp, err = c.SendMessage(post(t, r.URL, "x"))
		require.NoError(t, err)
		assert.Equal(t, hermes.Retryable, resp.Outcome)
		assert.Equal(t, hermes.StateDue, only(t, c).State())
	}, hermes.WithPolicy(everythingIsFine), hermes.WithMaxRetryAttempts(0))
}
