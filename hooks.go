package hermes

import (
	"context"
	"net/http"
	"runtime/debug"
	"time"
)

// Hooks are functions that are called as things happen, by the goroutine to which they happen: they must be quick and
// safe for concurrent use. A nil one costs nothing. A panic in one is logged and changes nothing. Their context is the
// request's, or that of RetryMessage or RetryAll: what a caller puts there for a hook to find, it finds.
type Hooks struct {
	// AttemptStart is called before each attempt. The context it returns is the attempt's, nil keeps the given one; it
	// must descend from the given one.
	AttemptStart func(ctx context.Context, info AttemptStartInfo) context.Context
	// AttemptDone is called after each attempt.
	AttemptDone func(ctx context.Context, info AttemptDoneInfo)
	// Delivered is called when a message arrived.
	Delivered func(ctx context.Context, info DeliveredInfo)
	// Saved is called when a message became a row, and when a retry's failure was recorded in its row.
	Saved func(ctx context.Context, info SavedInfo)
	// NotSaved is called when a message was neither delivered nor saved: the call returns a *NotSavedError, which code
	// between it and you may swallow.
	NotSaved func(ctx context.Context, info NotSavedInfo)
	// ClaimLost is called when an outcome or a renewal was refused because the claim is another's by now.
	ClaimLost func(ctx context.Context, info ClaimLostInfo)
	// Unreadable is called when a job met a row whose content cannot be read; the row was postponed.
	Unreadable func(ctx context.Context, info UnreadableInfo)
}

// AttemptStartInfo tells which attempt begins.
type AttemptStartInfo struct {
	MessageID   string
	Method, URL string // URL redacted
	Host        string
	Number      int  // from 1, within this call
	Retry       bool // of a row
}

// AttemptDoneInfo tells how an attempt ended.
type AttemptDoneInfo struct {
	AttemptStartInfo
	StatusCode int // 0: no answer
	Kind       FailureKind
	Outcome    Outcome
	Duration   time.Duration
	Hops       int // redirects followed
	Err        error
}

// DeliveredInfo tells of a message that arrived.
type DeliveredInfo struct {
	MessageID  string
	Host       string
	StatusCode int
	Attempts   int  // by this call
	Retry      bool // of a row: it is about to go
}

// SavedInfo tells of a message that is a row.
type SavedInfo struct {
	MessageID  string
	Host       string
	StatusCode int
	Kind       FailureKind
	Outcome    Outcome
	Attempts   int  // by this call
	Retry      bool // of a row that was there before
}

// NotSavedInfo tells of a message that was neither delivered nor saved.
type NotSavedInfo struct {
	MessageID  string
	Host       string
	StatusCode int   // of the last attempt; 0: no answer
	Err        error // the *NotSavedError, with the message in it
}

// ClaimLostInfo tells of a claim that is another's by now.
type ClaimLostInfo struct {
	MessageID string
}

// UnreadableInfo tells of a row whose content cannot be read.
type UnreadableInfo struct {
	MessageID string
	Err       error // matches ErrUnreadable
}

// hook calls f, if there is one, and survives its panic.
func hook[I any](c *Client, ctx context.Context, f func(context.Context, I), info I) {
	if f == nil {
		return
	}
	defer c.recoverHook()
	f(ctx, info)
}

func (c *Client) recoverHook() {
	if r := recover(); r != nil {
		c.logger.Error("hermes: a hook panicked", "panic", panicText(r), "stack", string(debug.Stack()))
	}
}

func (c *Client) attemptStart(ctx context.Context, info AttemptStartInfo) (attemptCtx context.Context) {
	if c.hooks.AttemptStart == nil {
		return ctx
	}
	attemptCtx = ctx
	defer c.recoverHook()
	if own := c.hooks.AttemptStart(ctx, info); own != nil {
		attemptCtx = own
	}
	return attemptCtx
}

var _ http.RoundTripper = (*transport)(nil)
