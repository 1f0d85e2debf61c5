package hermes_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hermeshttp/hermes"
)

func TestTransport_TheBodyIsAlwaysClosed(t *testing.T) {
	t.Parallel()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	r := newReceiver(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		status, _ := strconv.Atoi(r.URL.Path[1:])
		w.Header().Set("Location", "/200")
		w.WriteHeader(status)
	})
	stopped := onSQLite(t)
	require.NoError(t, stopped.Shutdown(t.Context()))
	c := onSQLite(t, hermes.WithMaxRetryAttempts(1))
	for name, test := range map[string]struct {
		client *hermes.Client
		url    string
		change func(*http.Request)
		opts   []hermes.SendOption
	}{
		"delivered":      {url: r.URL + "/200"},
		"redirected":     {url: r.URL + "/307"},
		"invalid":        {url: r.URL + "/400"},
		"failed":         {url: r.URL + "/503"},
		"no answer":      {url: refusing(t)},
		"bad request":    {url: r.URL, change: func(r *http.Request) { r.Method = "GE T" }},
		"no URL":         {url: r.URL, change: func(r *http.Request) { r.URL = nil }},
		"bad header":     {url: r.URL, change: func(r *http.Request) { r.Header.Set("X-A", "\n") }},
		"bad option":     {url: r.URL, opts: []hermes.SendOption{hermes.IdempotencyKey("\n")}},
		"canceled":       {url: r.URL, change: func(r *http.Request) { *r = *r.WithContext(canceled) }},
		"shut down":      {url: r.URL, client: stopped},
		"body too large": {url: r.URL, change: func(r *http.Request) { r.ContentLength = 1 << 40 }},
	} {
		t.Run(name, func(t *testing.T) {
			body := &watchedBody{Reader: strings.NewReader("hello")}
			req := post(t, test.url, "")
			req.Body, req.ContentLength = body, -1
			if test.change != nil {
				test.change(req)
			}
			client := c
			if test.client != nil {
				client = test.client
			}
			resp, err := client.Transport(test.opts...).RoundTrip(req)
			assert.NotEqual(t, resp == nil, err == nil)
			assert.Equal(t, 1, body.closed)
			if resp != nil {
				require.NoError(t, resp.Body.Close())
			}
		})
	}
}

func TestTransport_CancelledIsSavedAndSaysSo(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s := newRawServer(t, func(_ int, conn net.Conn) bool { cancel(); hold(conn); return false })
	c := onSQLite(t)
	_, err := (&http.Client{Transport: c.Transport()}).Do(post(t, s.URL, "hello").WithContext(ctx))
	require.ErrorIs(t, err, context.Canceled)
	var failure *hermes.SendError
	require.ErrorAs(t, err, &failure)
	row := only(t, c)
	assert.Equal(t, row.ID, failure.FailedMessageID)
	assert.Equal(t, hermes.KindCanceled, row.FailureKind)
	assert.Equal(t, hermes.StateDue, row.State())
}

func TestTransport_HooksReportTheIDInEveryCase(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status, attempts int
		method           string
		hooks            string
	}{
		"delivered":      {200, 1, "POST", "start done delivered "},
		"redirected":     {307, 1, "POST", "start done "},
		"safe, failed":   {404, 1, "GET", "start done "},
		"invalid, saved": {404, 1, "POST", "start done saved "},
		"failed, saved":  {503, 2, "POST", "start done start done saved "},
		"no answer":      {0, 2, "POST", "start done start done saved "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var called string
			ids := map[string]bool{}
			note := func(hook, id string) {
				mu.Lock()
				defer mu.Unlock()
				called += hook + " "
				ids[id] = true
			}
			c := onSQLite(t, hermes.WithMaxRetryAttempts(1), hermes.WithHooks(hermes.Hooks{
				AttemptStart: func(_ context.Context, i hermes.AttemptStartInfo) context.Context {
					note("start", i.MessageID)
					return nil
				},
				AttemptDone: func(_ context.Context, i hermes.AttemptDoneInfo) { note("done", i.MessageID) },
				Delivered:   func(_ context.Context, i hermes.DeliveredInfo) { note("delivered", i.MessageID) },
				Saved:       func(_ context.Context, i hermes.SavedInfo) { note("saved", i.MessageID) },
			}))
			r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
				if test.status == 0 {
					panic(http.ErrAbortHandler)
				}
				w.Header().Set("Location", "/")
				w.WriteHeader(test.status)
			})
			resp, err := c.Transport().RoundTrip(request(t, test.method, r.URL, "hello"))
			if err == nil {
				require.NoError(t, resp.Body.Close())
			}
			assert.Equal(t, test.hooks, called)
			require.Len(t, ids, 1)
			key := r.received()[0].Header.Get("Idempotency-Key")
			assert.True(t, ids[key], "the ID is the idempotency key")
			if n := count(t, c, hermes.Filter{}); n > 0 {
				assert.Equal(t, key, only(t, c).ID)
			}
		})
	}
}

// TestTransport_TimesOutOnlyUntilTheHeader is the other half of streaming: until then, and of what failed, it does.
func TestTransport_TimesOutOnlyUntilTheHeader(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{"no header": "", "a failure's body": "HTTP/1.1 500 \r\nContent-Length: 9\r\n\r\nhalf"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			s := newRawServer(t, func(_ int, conn net.Conn) bool { io.WriteString(conn, answer); hold(conn); return false })
			c := onSQLite(t, hermes.WithMaxRetryAttempts(1), hermes.WithRequestTimeout(2*time.Second))
			resp, err := c.Transport().RoundTrip(post(t, s.URL, "hello"))
			soon(t, start)
			assert.Len(t, s.received(), 2)
			if answer != "" {
				require.NoError(t, err)
				_, err = io.ReadAll(resp.Body)
				require.ErrorIs(t, err, io.ErrUnexpectedEOF)
				return
			}
			require.ErrorIs(t, err, context.DeadlineExceeded)
			var timeout net.Error
			require.ErrorAs(t, err, &timeout)
			assert.True(t, timeout.Timeout())
		})
	}
}

// TestTransport_UnderAClientWithATimeout: it bounds all attempts together. Such a client sets the request's Cancel.
func TestTransport_UnderAClientWithATimeout(t *testing.T) {
	t.Parallel()
	start := time.Now()
	r := newReceiver(t, statuses(503))
	c := onSQLite(t, hermes.WithRetryInterval(time.Hour))
	resp, err := (&http.Client{Transport: c.Transport(), Timeout: time.Minute}).Post(r.URL, "", bufio.NewReader(strings.NewReader("hello")))
	require.NoError(t, err, "a wait that the deadline cannot outlast is not begun, and an answer is no error")
	require.NoError(t, resp.Body.Close())
	soon(t, start)
	assert.Equal(t, 503, resp.StatusCode)
	assert.Equal(t, "hello", string(only(t, c).Body))

	var wrapped *url.Error
	_, err = (&http.Client{Transport: c.Transport()}).Get("ftp://127.0.0.1/")
	require.ErrorAs(t, err, &wrapped)
	assert.True(t, errors.Is(err, hermes.ErrInvalidMessage))
}

// TestTransport_ALoopThatTheClientGivesUpIsSaved: after ten requests an http.Client returns an error of its own; the
// message was in no table, and each hop had had a key of its own.
func TestTransport_ALoopThatTheClientGivesUpIsSaved(t *testing.T) {
	t.Parallel()
	c := onSQLite(t)
	r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "/again")
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	client := &http.Client{Transport: c.Transport()}
	resp, err := client.Do(post(t, r.URL, "hello"))
	if err == nil {
		require.NoError(t, resp.Body.Close())
	}
	row := only(t, c)
	assert.Equal(t, hermes.StateInvalid, row.State())
	assert.Equal(t, http.StatusTemporaryRedirect, row.StatusCode)
	seen := r.received()
	assert.Len(t, seen, 10)
	for _, one := range seen {
		assert.Equal(t, seen[0].Header.Get("Idempotency-Key"), one.Header.Get("Idempotency-Key"))
		assert.Equal(t, "hello", one.Body)
	}
	assert.Equal(t, seen[0].Header.Get("Idempotency-Key"), row.IdempotencyKey)
}

// TestTransport_AClientsTimeoutIsATimeout: it was one in half the cases, and of a random kind.
func TestTransport_AClientsTimeoutIsATimeout(t *testing.T) {
	t.Parallel()
	for range 10 {
		c := onSQLite(t)
		s := newRawServer(t, func(_ int, conn net.Conn) bool { hold(conn); return false })
		client := &http.Client{Transport: c.Transport(), Timeout: 100 * time.Millisecond}
		_, err := client.Do(post(t, s.URL, "hello"))
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		assert.True(t, timeout.Timeout())
		assert.Equal(t, hermes.KindCanceled, only(t, c).FailureKind)
	}
}
