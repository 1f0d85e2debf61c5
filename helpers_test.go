package hermes_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

// newClient returns a client on db, migrated, that waits a millisecond between attempts unless opts say otherwise.
func newClient(t testing.TB, db *gorm.DB, opts ...hermes.Option) *hermes.Client {
	t.Helper()
	opts = append([]hermes.Option{hermes.WithRetryInterval(time.Millisecond)}, opts...)
	c, err := hermes.New(db, opts...)
	require.NoError(t, err)
	require.NoError(t, c.Migrate(context.Background()))
	return c
}

// received is one request as a receiver saw it.
type received struct {
	Method, URL, Host, Body string
	Header                  http.Header
}

// receiver is a server that notes every request and answers with the statuses it was given, the last one for ever.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	requests []received
	answer   func(n int, w http.ResponseWriter, r *http.Request) // n counts from 1
}

func newReceiver(t testing.TB, answer func(n int, w http.ResponseWriter, r *http.Request)) *receiver {
	t.Helper()
	r := &receiver{answer: answer}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

// statuses answers with each of codes in turn, then with the last of them.
func statuses(codes ...int) func(int, http.ResponseWriter, *http.Request) {
	return func(n int, w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(codes[min(n, len(codes))-1])
	}
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	r.requests = append(r.requests, received{req.Method, req.URL.String(), req.Host, string(body), req.Header.Clone()})
	n := len(r.requests)
	r.mu.Unlock()
	r.answer(n, w, req)
}

func (r *receiver) received() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]received(nil), r.requests...)
}

func post(t testing.TB, url, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	require.NoError(t, err)
	return req
}

// each runs a test on both databases, with a fresh client.
func each(t *testing.T, test func(t *testing.T, c *hermes.Client, db *gorm.DB), opts ...hermes.Option) {
	t.Parallel()
	testdb.Each(t, func(t *testing.T, db *gorm.DB) { test(t, newClient(t, db, opts...), db) })
}

// only returns the table's one row.
func only(t testing.TB, c *hermes.Client) *hermes.FailedMessage {
	t.Helper()
	page, err := c.Monitor().List(context.Background(), hermes.Filter{}, hermes.ListOptions{})
	require.NoError(t, err)
	require.Len(t, page.Messages, 1)
	return page.Messages[0]
}

func count(t testing.TB, c *hermes.Client, f hermes.Filter) int64 {
	t.Helper()
	n, err := c.Monitor().Count(context.Background(), f)
	require.NoError(t, err)
	return n
}
