package wire

import (
	"context"
	"net/http/httptrace"
	"sync/atomic"
)

// Trace watches one attempt at a time: what became of its connections. That tells apart what certainly did not reach the
// receiver from what may have, and shows what net/http re-sends unseen.
type Trace struct {
	asked  atomic.Int32 // connections asked for
	got    atomic.Int32 // connections got: requests that went out
	reused atomic.Bool  // the last one got had been used before
	hooks  httptrace.ClientTrace
}

// Begin forgets the attempt before, and returns the context in which the next is watched.
func (t *Trace) Begin(ctx context.Context) context.Context {
	t.asked.Store(0)
	t.got.Store(0)
	t.reused.Store(false)
	t.hooks = httptrace.ClientTrace{GetConn: t.getConn, GotConn: t.gotConn}
	return httptrace.WithClientTrace(ctx, &t.hooks)
}

func (t *Trace) getConn(string) { t.asked.Add(1) }

func (t *Trace) gotConn(info httptrace.GotConnInfo) {
	t.got.Add(1)
	t.reused.Store(info.Reused)
}

// Requests is how many requests were sent, redirect hops apart. A RoundTripper that cannot be watched sends one.
func (t *Trace) Requests(hops int) int { return max(1, int(t.got.Load())-hops) }

// NotSent tells that a failed attempt's last request certainly was not sent, for want of a connection.
func (t *Trace) NotSent() bool { return t.asked.Load() > t.got.Load() }

// Sent tells that a failed attempt's last request had a connection.
func (t *Trace) Sent() bool { return t.asked.Load() > 0 && !t.NotSent() }

// Reused tells that a failed attempt's last request had a connection that had been used before.
func (t *Trace) Reused() bool { return t.Sent() && t.reused.Load() }
