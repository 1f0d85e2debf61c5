package wire

import (
	"context"
	"errors"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
)

// Trace watches one attempt at a time: what became of its connections. That tells apart what certainly did not reach the
// receiver from what may have, and shows what net/http re-sends unseen.
type Trace struct {
	state  atomic.Int32 // of the connection last asked for
	got    atomic.Int32 // connections got: requests that went out
	reused atomic.Bool  // the last one got had been used before
	used   bool         // for an attempt before
	hooks  httptrace.ClientTrace

	stop    context.CancelFunc // nil, or ends the attempt
	inDoubt atomic.Bool        // it went out over HTTP/2 and is not answered
	stopped atomic.Bool
}

const (
	connAsked int32 = iota + 1 // it was asked for once or, over HTTP/2, for each layer that keeps connections
	connGot
)

// ErrReplay tells that net/http was about to re-send a request that may have been acted on.
var ErrReplay = errors.New("the connection broke, or the stream was reset, before an answer came")

// Begin forgets the attempt before, and returns the context in which the next is watched. With once, it is also kept
// from being replayed over HTTP/2, where net/http re-sends whatever has no body: no header tells it not to.
func (t *Trace) Begin(ctx context.Context, once bool) context.Context {
	t.state.Store(0)
	t.got.Store(0)
	t.reused.Store(false)
	t.inDoubt.Store(false)
	hooks := &t.hooks
	if t.used {
		hooks = new(httptrace.ClientTrace) // a dial of the attempt before may be going on, with an eye on its hooks
	}
	t.used = true
	*hooks = httptrace.ClientTrace{GetConn: t.getConn, GotConn: t.gotConn}
	if once {
		ctx, t.stop = context.WithCancel(ctx) // which ends with ctx
		hooks.WroteHeaderField = t.wroteHeaderField
		hooks.GotFirstResponseByte = func() { t.inDoubt.Store(false) }
	}
	return httptrace.WithClientTrace(ctx, hooks)
}

func (t *Trace) getConn(string) { t.state.Store(connAsked) }

func (t *Trace) gotConn(info httptrace.GotConnInfo) {
	t.state.Store(connGot)
	if t.inDoubt.Load() {
		t.stopped.Store(true)
		t.stop() // HTTP/2 looks at the context before it writes the header
		return
	}
	t.got.Add(1)
	t.reused.Store(info.Reused)
}

// wroteHeaderField tells HTTP/2 by its pseudo-header fields.
func (t *Trace) wroteHeaderField(name string, _ []string) {
	if strings.HasPrefix(name, ":") {
		t.inDoubt.Store(true)
	}
}

// Explain returns the error with which the attempt failed: ErrReplay instead of what ending it led to.
func (t *Trace) Explain(err error) error {
	if t.stopped.Swap(false) && err != nil {
		return ErrReplay
	}
	return err
}

// Requests is how many requests were sent, redirect hops apart. A RoundTripper that cannot be watched sends one.
func (t *Trace) Requests(hops int) int { return max(1, int(t.got.Load())-hops) }

// NotSent tells that a failed attempt's last request certainly was not sent, for want of a connection.
func (t *Trace) NotSent() bool { return t.state.Load() == connAsked }

// Sent tells that a failed attempt's last request had a connection.
func (t *Trace) Sent() bool { return t.state.Load() == connGot }

// Reused tells that a failed attempt's last request had a connection that had been used before.
func (t *Trace) Reused() bool { return t.Sent() && t.reused.Load() }
