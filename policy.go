package hermes

import (
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"time"
)

// Outcome is what an attempt's answer, or the lack of one, means for its message.
type Outcome int

const (
	// Delivered: the receiver has it, as a 2xx status says.
	Delivered Outcome = iota + 1
	// Invalid: as it is, the message cannot succeed. It is saved at once and never retried by itself.
	Invalid
	// Retryable: another attempt may succeed.
	Retryable
	// RetryLater: another attempt may succeed, but not one within seconds. It is saved at once, to be retried.
	RetryLater
)

// String returns the outcome's name in lower case.
func (o Outcome) String() string {
	switch o {
	case Delivered:
		return "delivered"
	case Invalid:
		return "invalid"
	case RetryLater:
		return "retry later"
	}
	return "retryable"
}

// Attempt is one request and how it ended, as a Policy gets to see it.
type Attempt struct {
	Number     int           // from 1, within this call of SendMessage or RetryMessage
	Request    *http.Request // what was to be sent; not to be modified, its body has been used
	StatusCode int           // 0: no answer
	Header     http.Header   // of the answer; nil if there was none
	Kind       FailureKind
	Err        error // why there was no answer, or why a redirect was not followed; else nil
}

// A Policy decides what a failed attempt means. It is not asked about a 2xx status, which is a delivery. It may take
// another status for one, a 409 say, but not the lack of an answer: that, and any other Outcome it should not return,
// counts as Retryable, and so does a panic. It is called by many goroutines.
type Policy func(Attempt) Outcome

// DefaultPolicy has 3xx (a redirect that was not followed) and 4xx as Invalid, and everything else, no answer
// included, as Retryable; but RetryLater if the host's name is unknown or its certificate was refused.
func DefaultPolicy(a Attempt) Outcome {
	switch {
	case a.StatusCode >= 200 && a.StatusCode <= 299:
		return Delivered
	case a.StatusCode >= 300 && a.StatusCode <= 499:
		return Invalid
	case a.StatusCode == 0 && isLasting(a.Err):
		return RetryLater
	}
	return Retryable
}

// isLasting tells whether seconds will not mend err.
func isLasting(err error) bool {
	var unknownHost *net.DNSError
	var untrusted *tls.CertificateVerificationError
	return errors.As(err, &unknownHost) && unknownHost.IsNotFound || errors.As(err, &untrusted)
}

// RetryStatus is base with some statuses made Retryable, for instance 408, 425 and 429 of a receiver that throttles.
func RetryStatus(base Policy, codes ...int) Policy {
	codes = slices.Clone(codes)
	return func(a Attempt) Outcome {
		if slices.Contains(codes, a.StatusCode) {
			return Retryable
		}
		return base(a)
	}
}

// Backoff tells how long to wait before retrying. Implementations must be pure, as they are shared by goroutines.
type Backoff interface {
	// Delay returns the wait before the retry-th retry, which counts from 1. A negative one counts as none.
	Delay(retry int) time.Duration
}

// ConstantBackoff always waits d.
func ConstantBackoff(d time.Duration) Backoff { return constantBackoff(d) }

type constantBackoff time.Duration

func (b constantBackoff) Delay(int) time.Duration { return time.Duration(b) }

// ExponentialBackoff waits between nothing and base the first time, and doubles that bound each time up to max: "full
// jitter", which spreads best those who failed together
// (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
func ExponentialBackoff(base, max time.Duration) Backoff {
	return exponentialBackoff{doublingBackoff{base: base, max: max}}
}

type exponentialBackoff struct{ bound doublingBackoff }

func (b exponentialBackoff) Delay(retry int) time.Duration {
	bound := b.bound.Delay(retry)
	if bound <= 0 {
		return 0
	}
	return rand.N(bound)
}

// doublingBackoff is without jitter: rows are retried by jobs, which spread them, and an operator can foresee it.
type doublingBackoff struct{ base, max time.Duration }

func (b doublingBackoff) Delay(retry int) time.Duration {
	delay := b.base
	for i := 1; i < retry && 0 < delay && delay < b.max; i++ {
		delay *= 2
		if delay < 0 {
			return b.max
		}
	}
	return min(delay, b.max)
}
