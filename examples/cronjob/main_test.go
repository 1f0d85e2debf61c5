package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

// programEnv makes the test binary the program itself.
const programEnv = "HERMES_RUN_CRONJOB"

func TestMain(m *testing.M) {
	if os.Getenv(programEnv) != "" {
		main()
		return
	}
	os.Exit(testdb.Main(m))
}

// TestTwoInstances: each row is delivered once by one of two processes, and the requests that are under way when they
// are told to stop are finished first.
func TestTwoInstances(t *testing.T) {
	for name, newDSN := range map[string]func(testing.TB) string{"sqlite": testdb.SQLiteDSN, "postgres": testdb.PostgresDSN} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const rows = 12 // at most PerHost, as all are under way at once
			dsn := newDSN(t)
			receiver := startReceiver(t)
			client, err := hermes.New(testdb.Open(t, dsn))
			require.NoError(t, err)
			require.NoError(t, client.Migrate(t.Context()))
			for range rows {
				enqueue(t, client, receiver.URL)
			}

			instances := []*instance{start(t, dsn), start(t, dsn)}
			receiver.await(t, rows) // which are not answered yet
			for _, in := range instances {
				require.NoError(t, in.Process.Signal(syscall.SIGTERM))
				in.awaitLine(t, "stopping")
			}
			receiver.answer()

			delivered := 0
			for _, in := range instances {
				rest := in.awaitEnd(t)
				for _, n := range regexp.MustCompile(`delivered=(\d+)`).FindAllStringSubmatch(rest, -1) {
					count, err := strconv.Atoi(n[1])
					require.NoError(t, err)
					delivered += count
				}
			}
			assert.Equal(t, rows, delivered, "as the summaries say")
			assert.Len(t, receiver.byKey, rows)
			for key, n := range receiver.byKey {
				assert.Equal(t, 1, n, key)
			}
			left, err := client.Monitor().Count(t.Context(), hermes.Filter{})
			require.NoError(t, err)
			assert.Zero(t, left)
		})
	}
}

func TestOldestDue(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db *gorm.DB) {
		client, err := hermes.New(db)
		require.NoError(t, err)
		require.NoError(t, client.Migrate(t.Context()))
		none, err := oldestDue(t.Context(), db)
		require.NoError(t, err)
		assert.Zero(t, none)
		for _, at := range []time.Duration{-time.Hour, -time.Minute, time.Hour} {
			_, err := client.Enqueue(t.Context(), nil, newRequest(t, "http://localhost"), time.Now().Add(at))
			require.NoError(t, err)
		}
		oldest, err := oldestDue(t.Context(), db)
		require.NoError(t, err)
		assert.InDelta(t, time.Hour, oldest, float64(time.Minute))
	})
}

func TestBadSchedule(t *testing.T) {
	t.Parallel()
	assert.Error(t, run(t.Context(), testdb.SQLiteDSN(t), "whenever"))
}

// instance is a process that runs the program.
type instance struct {
	*exec.Cmd
	log *bufio.Scanner
}

func start(t *testing.T, dsn string) *instance {
	self, err := os.Executable()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, self, "-db", dsn, "-schedule", "@every 1s")
	cmd.Env = append(os.Environ(), programEnv+"=1")
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	in := &instance{cmd, bufio.NewScanner(stderr)}
	in.awaitLine(t, "started") // from now on a signal does not just kill it
	return in
}

func (in *instance) awaitLine(t *testing.T, text string) {
	t.Helper()
	for in.log.Scan() {
		if strings.Contains(in.log.Text(), text) {
			return
		}
	}
	require.Fail(t, "the program ended without saying "+text)
}

// awaitEnd returns the rest of the log.
func (in *instance) awaitEnd(t *testing.T) string {
	t.Helper()
	var rest strings.Builder
	for in.log.Scan() {
		fmt.Fprintln(&rest, in.log.Text())
	}
	assert.NoError(t, in.Wait(), rest.String())
	return rest.String()
}

// receiver answers when it is told to.
type receiver struct {
	*httptest.Server
	arrived chan struct{}
	answer  func()
	mu      sync.Mutex
	byKey   map[string]int
}

func startReceiver(t *testing.T) *receiver {
	told := make(chan struct{})
	r := &receiver{arrived: make(chan struct{}, 1000), answer: sync.OnceFunc(func() { close(told) }), byKey: map[string]int{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.byKey[req.Header.Get("Idempotency-Key")]++
		r.mu.Unlock()
		r.arrived <- struct{}{}
		<-told
	}))
	t.Cleanup(r.Close) // which waits for the handlers
	t.Cleanup(r.answer)
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
			require.Fail(t, "rows were not sent")
		}
	}
}

func enqueue(t *testing.T, client *hermes.Client, url string) {
	t.Helper()
	_, err := client.Enqueue(t.Context(), nil, newRequest(t, url), time.Time{})
	require.NoError(t, err)
}

func newRequest(t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(`{"id": 1}`))
	require.NoError(t, err)
	return req
}
