package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

// TestTwoInstances: each row is delivered once, and when an instance is gone the other goes on.
func TestTwoInstances(t *testing.T) {
	t.Parallel()
	const rows = 50
	dsn := testdb.PostgresDSN(t)
	require.NoError(t, run(t.Context(), dsn, time.Minute, true))
	client, err := hermes.New(testdb.Open(t, dsn))
	require.NoError(t, err)
	receiver := startReceiver(t)

	enqueue(t, client, receiver.URL, rows)
	first, second := start(t, dsn), start(t, dsn)
	receiver.await(t, rows)
	enqueue(t, client, receiver.URL, rows)
	receiver.await(t, rows)

	first.stop(t)
	enqueue(t, client, receiver.URL, rows)
	receiver.await(t, rows)
	second.stop(t)

	left, err := client.Monitor().Count(t.Context(), hermes.Filter{})
	require.NoError(t, err)
	assert.Zero(t, left)
	assert.Len(t, receiver.byKey, 3*rows)
	for key, n := range receiver.byKey {
		assert.Equal(t, 1, n, key)
	}
}

// instance is the program, with a pool of its own.
type instance struct {
	cancel context.CancelFunc
	ended  chan error
}

func start(t *testing.T, dsn string) *instance {
	ctx, cancel := context.WithCancel(context.Background())
	in := &instance{cancel, make(chan error, 1)}
	go func() { in.ended <- run(ctx, dsn, time.Second, false) }()
	t.Cleanup(cancel)
	return in
}

func (in *instance) stop(t *testing.T) {
	t.Helper()
	in.cancel()
	require.NoError(t, <-in.ended)
}

type receiver struct {
	*httptest.Server
	arrived chan struct{}
	mu      sync.Mutex
	byKey   map[string]int
}

func startReceiver(t *testing.T) *receiver {
	r := &receiver{arrived: make(chan struct{}, 1000), byKey: map[string]int{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.byKey[req.Header.Get("Idempotency-Key")]++
		r.mu.Unlock()
		r.arrived <- struct{}{}
	}))
	t.Cleanup(r.Close)
	return r
}

// await waits for n requests.
func (r *receiver) await(t *testing.T, n int) {
	t.Helper()
	late := time.After(time.Minute)
	for range n {
		select {
		case <-r.arrived:
		case <-late:
			require.Fail(t, "rows were not delivered")
		}
	}
}

func enqueue(t *testing.T, client *hermes.Client, url string, n int) {
	t.Helper()
	for range n {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(`{"id": 1}`))
		require.NoError(t, err)
		_, err = client.Enqueue(t.Context(), nil, req, time.Time{})
		require.NoError(t, err)
	}
}
