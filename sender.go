package hermes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/hermeshttp/hermes/internal/retryafter"
	"github.com/hermeshttp/hermes/internal/wire"
)

// result is how a run of attempts ended; what it tells of an attempt is of the last one.
type result struct {
	*Response
	kind       FailureKind
	err        error
	retryAfter time.Duration
	stale      bool // it failed on a reused connection, before any byte of an answer
	canceled   bool // the run was cut short: by the caller's context, Shutdown, or a lost claim
	claimErr   error
	open       *http.Response // with outgoing.stream: an open 2xx answer, or one that is for the caller to follow
}

// run makes attempts until one settles the message, no more are allowed, or waiting is not possible.
func (c *Client) run(ctx context.Context, o *outgoing, maxAttempts int) *result {
	r := &o.result
	r.Response = &Response{}
	for number, hurried := 1, false; ; number++ {
		if !c.attempt(ctx, o, r, number) {
			return r
		}
		if r.Outcome == Delivered || r.Outcome == Invalid || r.open != nil {
			return r
		}
		if r.canceled = ctx.Err() != nil || c.isStopped(); r.canceled {
			r.err = c.cause(ctx, r.err)
			return r
		}
		// A reused connection that turned out dead must not cost a retry its only attempt.
		isLast := r.Attempts >= maxAttempts && (o.row == nil || maxAttempts > 1 || !r.stale || hurried)
		if r.Outcome == RetryLater || isLast || r.retryAfter > c.maxRetryAfter {
			return r
		}
		delay := max(c.backoff.Delay(number), r.retryAfter, 0)
		// A reused connection that turned out dead says nothing of the receiver. Two in a row may: then it is waited.
		hurried = r.stale && !hurried
		if hurried {
			delay = 0
		}
		if o.config.hasPassed(delay) || !c.canWait(ctx, delay) {
			return r
		}
		c.holdForRetries(ctx, o, r)
		if !c.pause(ctx, o, r, delay) {
			return r
		}
	}
}

// canWait tells whether ctx lasts longer than the wait.
func (c *Client) canWait(ctx context.Context, delay time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return !ok || time.Until(deadline) > delay
}

// pause waits before the next attempt, and keeps the claim meanwhile and for that attempt. It tells whether to go on.
func (c *Client) pause(ctx context.Context, o *outgoing, r *result, delay time.Duration) bool {
	for {
		step := delay
		if o.claim != nil {
			step = min(delay, c.claimTTL/2)
		}
		if !c.wait(ctx, step) {
			r.canceled, r.err = true, c.cause(ctx, r.err)
			return false
		}
		if o.claim != nil {
			if r.claimErr = c.renew(ctx, o.claim); r.claimErr != nil {
				r.canceled = true
				return false
			}
		}
		if delay -= step; delay <= 0 {
			return true
		}
	}
}

// wait returns true after d, or false as soon as ctx or the client ends.
func (c *Client) wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil && !c.isStopped()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	case <-c.stopped:
		return false
	}
}

// attempt makes one attempt and notes its end in r. It returns false if the client was shut down before it began.
func (c *Client) attempt(ctx context.Context, o *outgoing, r *result, number int) bool {
	start := time.Now()
	lim := c.newLimits(ctx, o, start)
	if !c.begin(o, lim.cancel) {
		lim.cancel()
		r.canceled = true
		return false
	}
	info := c.startInfo(o, number)
	attemptCtx := c.attemptStart(lim.ctx, info)
	ex := c.wire.Do(o.trace.Begin(attemptCtx, o.mustGoOnce()), &o.Message, !o.stream)
	o.sent = ex.Sent
	ex.Err = lim.explain(o.trace.Explain(ex.Err))
	c.judge(ctx, o, r, ex, number)
	c.finish(o, r, ex, lim)
	r.Attempts += o.trace.Requests(ex.Hops)

	if r.Outcome == Delivered && c.hooks.AttemptDone == nil {
		return true
	}
	record := AttemptRecord{At: start.UTC(), Duration: time.Since(start), StatusCode: r.StatusCode, Kind: r.kind,
		Hops: ex.Hops, Instance: c.instanceID}
	if r.Outcome != Delivered {
		o.log = append(o.log, record)
		c.logAttempt(attemptCtx, o, r, number)
	}
	hook(c, attemptCtx, c.hooks.AttemptDone, AttemptDoneInfo{AttemptStartInfo: info, StatusCode: r.StatusCode, Kind: r.kind,
		Outcome: r.Outcome, Duration: record.Duration, Hops: ex.Hops, Err: r.err})
	return true
}

// limits bound one attempt in time.
type limits struct {
	ctx    context.Context
	cancel context.CancelFunc
	timer  *time.Timer // of a stream, whose time ends with the header
}

// newLimits makes an attempt's context. It ends within the claim under which the attempt is made.
func (c *Client) newLimits(ctx context.Context, o *outgoing, start time.Time) limits {
	timeout := c.attemptTimeout
	if o.claim != nil {
		timeout = min(timeout, o.claim.until.Sub(start)-time.Second)
	}
	if !o.stream {
		ctx, cancel := context.WithDeadline(ctx, start.Add(timeout))
		return limits{ctx: ctx, cancel: cancel}
	}
	streamCtx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(timeout, func() { cancel(context.DeadlineExceeded) })
	return limits{ctx: streamCtx, cancel: func() { timer.Stop(); cancel(nil) }, timer: timer}
}

// explain makes the timeout of a stream known as one: HTTP/2 reports a context's Err only, not its Cause.
func (l limits) explain(err error) error {
	if err == nil || isTimeout(err) || !errors.Is(context.Cause(l.ctx), context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
}

// judge settles what ex means for the message.
func (c *Client) judge(ctx context.Context, o *outgoing, r *result, ex wire.Exchange, number int) {
	*r.Response = Response{Attempts: r.Attempts}
	r.err, r.retryAfter, r.stale = ex.Err, 0, false
	if resp := ex.Response; resp != nil {
		r.StatusCode, r.Header = resp.StatusCode, resp.Header
	}
	if r.StatusCode/100 == 2 {
		r.Outcome, r.kind, r.err = Delivered, "", nil
		return
	}
	r.retryAfter, _ = retryafter.Parse(r.Header, time.Now())
	switch {
	case ex.Err == nil:
		r.kind = KindStatus
	case ex.Response == nil && (ctx.Err() != nil || c.isAborted()):
		r.kind, r.err = KindCanceled, c.cause(ctx, ex.Err)
	default:
		r.kind = kindOf(ex.Err, &o.trace)
		r.stale = ex.Response == nil && o.trace.Reused() && !isTimeout(ex.Err)
	}
	r.Outcome = c.decide(Attempt{Number: number, Request: o.Template, StatusCode: r.StatusCode, Header: r.Header,
		Kind: r.kind, Err: r.err}, r)
	if r.Outcome == Delivered {
		r.kind, r.err = "", nil
	}
}

// cause is why a run was cut short, before what its last attempt failed with.
func (c *Client) cause(ctx context.Context, err error) error {
	why := ctx.Err()
	if why == nil {
		why = ErrShutdown
	}
	if err == nil || errors.Is(err, why) {
		return cmp.Or(err, why)
	}
	return fmt.Errorf("%w: %w", why, err)
}

// decide asks the policy.
func (c *Client) decide(a Attempt, r *result) (outcome Outcome) {
	defer func() {
		if p := recover(); p != nil {
			outcome = Retryable
			r.kind, r.err = KindPanic, &wire.PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	switch outcome = c.policy(a); {
	case outcome == Invalid, outcome == RetryLater, outcome == Delivered && a.StatusCode != 0:
		return outcome
	}
	return Retryable
}

// finish reads the answer and ends the attempt's time; of a stream that is delivered it leaves both to the caller.
func (c *Client) finish(o *outgoing, r *result, ex wire.Exchange, lim limits) {
	resp := ex.Response
	if resp == nil {
		lim.cancel()
		return
	}
	if o.stream && (r.Outcome == Delivered || isForClient(o, resp)) {
		lim.timer.Stop()
		resp.Body = &streamedBody{ReadCloser: resp.Body, cancel: lim.cancel}
		r.open = resp
		return
	}
	defer lim.cancel()
	r.Body, r.Truncated, _ = wire.ReadBody(resp, c.maxResponseBytes)
}

func (c *Client) startInfo(o *outgoing, number int) AttemptStartInfo {
	if c.hooks.AttemptStart == nil && c.hooks.AttemptDone == nil {
		return AttemptStartInfo{}
	}
	return AttemptStartInfo{MessageID: o.id, Method: o.method(), URL: o.redactedURL(), Host: o.host(), Number: number,
		Retry: o.row != nil}
}
