package hermes_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

// roundTripper is a RoundTripper made of a function.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestFault15_TheUsersTimeoutIsOfEachAttempt(t *testing.T) {
	t.Parallel()
	for name, timeouts := range map[string][2]time.Duration{
		"the client's is shorter": {200 * time.Millisecond, time.Minute},
		"Hermes' is shorter":      {40 * time.Second, 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newRawServer(t, func(n int, conn net.Conn) bool {
				if n < 3 {
					hold(conn)
				}
				return says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(n, conn)
			})
			client, _ := ownClient(t)
			client.Timeout = timeouts[0]
			before := *client
			c := onSQLite(t, hermes.WithHTTPClient(client), hermes.WithRequestTimeout(timeouts[1]), hermes.WithClaimTTL(2*time.Minute))
			start := time.Now()
			resp, err := c.SendMessage(post(t, s.URL, "hello"))
			require.NoError(t, err)
			assert.True(t, resp.Succeeded())
			assert.Equal(t, 3, resp.Attempts)
			assert.GreaterOrEqual(t, time.Since(start), 400*time.Millisecond)
			soon(t, start)
			assert.Equal(t, before.Timeout, client.Timeout)
		})
	}
}

func TestFault15_TheUsersTransportIsUsed(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	r := newReceiver(t, statuses(503, 200))
	transport := roundTripper(func(req *http.Request) (*http.Response, error) {
		calls.Add(1)
		return http.DefaultTransport.RoundTrip(req)
	})
	c := onSQLite(t, hermes.WithHTTPClient(&http.Client{Transport: transport}))
	resp, err := c.SendMessage(post(t, r.URL, "hello"))
	require.NoError(t, err)
	assert.True(t, resp.Succeeded())
	assert.EqualValues(t, 2, calls.Load())
}

func TestFault15_TheUsersJarIsUsedAtEveryHop(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, func(n int, w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "last", Value: r.URL.Path[1:] + "x", Path: "/"})
		switch {
		case r.URL.Path == "/login":
			w.Header().Set("Location", "/end")
			w.WriteHeader(307)
		case n == 2:
			w.WriteHeader(503)
		}
	})
	client, _ := ownClient(t)
	client.Jar = jarWith(t, r.URL, "first=1")
	c := onSQLite(t, hermes.WithHTTPClient(client))
	req := post(t, r.URL+"/login", "hello")
	req.Header.Set("Cookie", "own=1")
	resp, err := c.SendMessage(req)
	require.NoError(t, err)
	assert.True(t, resp.Succeeded())
	var cookies []string
	for _, one := range r.received() {
		cookies = append(cookies, one.URL+" "+one.Header.Get("Cookie"))
	}
	assert.Equal(t, []string{
		"/login own=1; first=1", "/end own=1; first=1; last=loginx", "/login own=1; first=1; last=endx", "/end own=1; first=1; last=loginx",
	}, cookies)
}

func TestFault15_WithAJarTheSameURLIsNoLoop(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		if _, err := r.Cookie("seen"); err != nil {
			http.SetCookie(w, &http.Cookie{Name: "seen", Value: "1"})
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		}
	})
	client, _ := ownClient(t)
	client.Jar = jarWith(t, r.URL, "a=b")
	resp, err := onSQLite(t, hermes.WithHTTPClient(client)).SendMessage(post(t, r.URL+"/same", "hello"))
	require.NoError(t, err)
	assert.True(t, resp.Succeeded(), "%v", resp.Err())
}

func TestFault15_TheUsersCheckRedirectDecides(t *testing.T) {
	t.Parallel()
	no := errors.New("no")
	for name, test := range map[string]struct {
		err       error
		delivered bool
	}{
		"allows":        {nil, true},
		"refuses":       {no, false},
		"last response": {http.ErrUseLastResponse, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t, redirecting(answers(200, "")))
			client, _ := ownClient(t)
			var via [][]string
			client.CheckRedirect = func(req *http.Request, before []*http.Request) error {
				var urls []string
				for _, one := range append(before, req) {
					urls = append(urls, one.Method+" "+one.URL.Path)
				}
				via = append(via, urls)
				req.Header.Set("X-Checked", "1")
				assert.Equal(t, 307, req.Response.StatusCode)
				if len(before) == 2 {
					return test.err
				}
				return nil
			}
			c := onSQLite(t, hermes.WithHTTPClient(client))
			resp, err := c.SendMessage(post(t, r.URL+"/307/307/end", "hello"))
			require.NoError(t, err)
			assert.Equal(t, [][]string{{"POST /307/307/end", "POST /307/end"}, {"POST /307/307/end", "POST /307/end", "POST /end"}}, via)
			seen := r.received()
			assert.Equal(t, "1", seen[1].Header.Get("X-Checked"))
			assert.Equal(t, test.delivered, resp.Succeeded())
			if test.delivered {
				return
			}
			assert.Len(t, seen, 2)
			assert.Equal(t, 307, resp.StatusCode)
			assert.ErrorIs(t, resp.Err(), test.err)
			assert.Equal(t, hermes.KindRedirect, only(t, c).FailureKind)
		})
	}
}

// panicJar panics where it is told to.
type panicJar struct{ get, set bool }

func (j panicJar) Cookies(*url.URL) []*http.Cookie {
	if j.get {
		panic("jar")
	}
	return nil
}

func (j panicJar) SetCookies(*url.URL, []*http.Cookie) {
	if j.set {
		panic("jar")
	}
}

// panicBody panics when it is read, after its beginning.
type panicBody struct{ begun bool }

func (b *panicBody) Read(p []byte) (int, error) {
	if b.begun {
		panic("body")
	}
	b.begun = true
	return copy(p, "half"), nil
}

func (*panicBody) Close() error { panic("close") }

func TestFault16_WhatPanicsFailsTheAttempt(t *testing.T) {
	for name, test := range map[string]struct {
		option func(t *testing.T) hermes.Option
		answer int // of the receiver
		kind   hermes.FailureKind
		status int
	}{
		"signer": {func(*testing.T) hermes.Option {
			return hermes.WithRequestSigner(func(*http.Request) error { panic("signer") })
		}, 200, hermes.KindSigner, 0},
		"signer that fails": {func(*testing.T) hermes.Option {
			return hermes.WithRequestSigner(func(*http.Request) error { return errBody })
		}, 200, hermes.KindSigner, 0},
		"policy": {func(*testing.T) hermes.Option {
			return hermes.WithPolicy(func(hermes.Attempt) hermes.Outcome { panic("policy") })
		}, 400, hermes.KindPanic, 400},
		"RoundTripper": {func(*testing.T) hermes.Option {
			return hermes.WithHTTPClient(&http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { panic("rt") })})
		}, 200, hermes.KindPanic, 0},
		"RoundTripper with a nil error": {func(*testing.T) hermes.Option {
			return hermes.WithHTTPClient(&http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { panic(error(nil)) })}) //nolint:govet // it is meant
		}, 200, hermes.KindPanic, 0},
		"RoundTripper with neither": {func(*testing.T) hermes.Option {
			return hermes.WithHTTPClient(&http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { return nil, nil })})
		}, 200, hermes.KindOther, 0},
		"response's body": {func(*testing.T) hermes.Option {
			return hermes.WithHTTPClient(&http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 500, Body: &panicBody{}}, nil
			})})
		}, 0, hermes.KindStatus, 500},
		"Jar, reading": {func(t *testing.T) hermes.Option {
			client, _ := ownClient(t)
			client.Jar = panicJar{get: true}
			return hermes.WithHTTPClient(client)
		}, 200, hermes.KindPanic, 0},
		"Jar, writing": {func(t *testing.T) hermes.Option {
			client, _ := ownClient(t)
			client.Jar = panicJar{set: true}
			return hermes.WithHTTPClient(client)
		}, 500, hermes.KindStatus, 500},
		"CheckRedirect": {func(t *testing.T) hermes.Option {
			client, _ := ownClient(t)
			client.CheckRedirect = func(*http.Request, []*http.Request) error { panic("check") }
			return hermes.WithHTTPClient(client)
		}, 307, hermes.KindPanic, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "/other")
				w.Header().Set("Set-Cookie", "a=b")
				w.WriteHeader(test.answer)
			})
			c := onSQLite(t, test.option(t), hermes.WithMaxRetryAttempts(1))
			resp, err := c.SendMessage(post(t, r.URL, "hello"))
			require.NoError(t, err)
			assert.Equal(t, 2, resp.Attempts)
			assert.Equal(t, test.status, resp.StatusCode)
			row := only(t, c)
			assert.Equal(t, resp.FailedMessageID, row.ID)
			assert.Equal(t, test.kind, row.FailureKind)
			assert.Equal(t, hermes.StateDue, row.State())
			assert.Equal(t, test.kind == hermes.KindSigner, row.FailureKind.NotSent())
			if test.kind.NotSent() {
				assert.Empty(t, r.received())
			}
		})
	}
}

func TestFault16_AfterA2xxNoPanicMakesARow(t *testing.T) {
	each(t, func(t *testing.T, _ *hermes.Client, db *gorm.DB) {
		var log bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		client, _ := ownClient(t)
		client.Jar = panicJar{set: true}
		c := newClient(t, db, hermes.WithHTTPClient(client), hermes.WithLogger(slog.New(slog.NewTextHandler(&log, nil))),
			hermes.WithPolicy(func(hermes.Attempt) hermes.Outcome { panic("not asked") }),
			hermes.WithHooks(hermes.Hooks{
				AttemptStart: func(context.Context, hermes.AttemptStartInfo) context.Context { panic("start") },
				AttemptDone:  func(context.Context, hermes.AttemptDoneInfo) { cancel(); panic("done") },
				Delivered:    func(context.Context, hermes.DeliveredInfo) { panic("delivered") },
			}))
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Set-Cookie", "a=b")
			io.WriteString(w, "body")
		})
		resp, err := c.SendMessage(post(t, r.URL, "hello").WithContext(ctx))
		require.NoError(t, err)
		assert.True(t, resp.Succeeded())
		assert.Equal(t, "body", string(resp.Body))
		assert.Len(t, r.received(), 1)
		assert.Zero(t, count(t, c, hermes.Filter{}))
		for _, hook := range []string{"panic=start", "panic=done", "panic=delivered"} {
			assert.Contains(t, log.String(), hook)
		}
	})
}

func TestFault16_APanickingBodyOfA2xxIsADelivery(t *testing.T) {
	t.Parallel()
	c := onSQLite(t, hermes.WithScheme("odd", roundTripper(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: &panicBody{}}, nil
	})))
	resp, err := c.SendMessage(post(t, "odd://queue", "hello"))
	require.NoError(t, err)
	assert.True(t, resp.Succeeded())
	assert.True(t, resp.Truncated)
	assert.Equal(t, "half", string(resp.Body))
	assert.Zero(t, count(t, c, hermes.Filter{}))
}
