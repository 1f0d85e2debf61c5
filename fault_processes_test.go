package hermes_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	osexec "os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

// The further environment of a second process.
const (
	urlEnv  = "HERMES_TEST_URL"
	modeEnv = "HERMES_TEST_DURABILITY"
)

// itsClient is a second process' client, whose connections end with it.
func itsClient(t *testing.T, opts ...hermes.Option) *hermes.Client {
	t.Helper()
	client, _ := ownClient(t)
	c, err := hermes.New(testdb.Open(t, os.Getenv(dsnEnv)), append(opts, hermes.WithHTTPClient(client))...)
	require.NoError(t, err)
	return c
}

// process is a second process at work.
type process struct {
	*os.Process
	cmd *osexec.Cmd
	out *bufio.Reader
}

// start has a role done by another process.
func start(t *testing.T, role, dsn string, env ...string) *process {
	t.Helper()
	cmd := osexec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestInAnotherProcess$", "-test.timeout=5m")
	cmd.Env = append(append(os.Environ(), roleEnv+"="+role, dsnEnv+"="+dsn), env...)
	cmd.Stderr = os.Stderr
	begin, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	p := &process{cmd.Process, cmd, bufio.NewReader(out)}
	line, err := p.out.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	require.NoError(t, begin.Close())
	return p
}

// wait returns what the process has done, when it has ended.
func (p *process) wait(t *testing.T) (r report) {
	t.Helper()
	line, err := p.out.ReadBytes('\n')
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(line, &r))
	_, err = io.Copy(io.Discard, p.out)
	require.NoError(t, err)
	require.NoError(t, p.cmd.Wait())
	return r
}

// kill ends the process in the way that leaves it no chance to clean up.
func (p *process) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, p.Kill())
	_, err := io.Copy(io.Discard, p.out)
	require.NoError(t, err)
	assert.Error(t, p.cmd.Wait())
}

// TestFault22_KilledWhileSending: what a mode promises is a row, whose message carries the same key when it is sent again.
func TestFault22_KilledWhileSending(t *testing.T) {
	for name, test := range map[string]struct {
		mode   hermes.Durability
		waits  bool // it is killed while it waits after the first attempt; else, during that
		isKept bool
	}{
		"after retries, sending":   {hermes.SaveAfterRetries, false, false},
		"after retries, waiting":   {hermes.SaveAfterRetries, true, false},
		"before retries, sending":  {hermes.SaveBeforeRetries, false, false},
		"before retries, waiting":  {hermes.SaveBeforeRetries, true, true},
		"before sending, sending":  {hermes.SaveBeforeSend, false, true},
		"before sending, waiting ": {hermes.SaveBeforeSend, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			eachDSN(t, func(t *testing.T, dsn string) {
				db := testdb.Open(t, dsn)
				c := newClient(t, db)
				arrived, done := make(chan string), make(chan struct{})
				r := newReceiver(t, func(n int, w http.ResponseWriter, req *http.Request) {
					if n > 1 {
						return
					}
					arrived <- req.Header.Get("Idempotency-Key")
					if !test.waits {
						<-done
					}
					w.WriteHeader(503)
				})
				defer close(done)
				p := start(t, "send", dsn, urlEnv+"="+r.URL, modeEnv+"="+strconv.Itoa(int(test.mode)))
				key := <-arrived
				if test.waits && test.isKept {
					isRow := func() bool { return count(t, c, hermes.Filter{States: []hermes.State{hermes.StateClaimed}}) == 1 }
					require.Eventually(t, isRow, 20*time.Second, 10*time.Millisecond)
				}
				p.kill(t)
				if !test.isKept {
					assert.Zero(t, count(t, c, hermes.Filter{}), "what this mode may lose")
					return
				}
				m := only(t, c)
				assert.Equal(t, "hello", string(m.Body))
				assert.Equal(t, hermes.RetrySummary{}, retryAll(t, c, hermes.RetryOptions{}), "it is still claimed")
				expire(t, db, m.ID)
				assert.Equal(t, hermes.RetrySummary{Delivered: 1}, retryAll(t, c, hermes.RetryOptions{}))
				assert.Equal(t, key, r.received()[1].Header.Get("Idempotency-Key"))
			})
		})
	}
}

// TestFault24_TwentyProcessesGatherAtOnce: every row is claimed once.
func TestFault24_TwentyProcessesGatherAtOnce(t *testing.T) {
	eachDSN(t, func(t *testing.T, dsn string) {
		const rows = 2000
		db := testdb.Open(t, dsn)
		c := newClient(t, db)
		multiply(t, db, saved(t, c).ID, rows-1)
		var all []string
		for _, r := range inProcesses(t, 20, "gather", dsn) {
			all = append(all, r.IDs...)
		}
		assert.Len(t, all, rows)
		slices.Sort(all)
		assert.Len(t, slices.Compact(all), rows, "rows were gathered twice")
		for m, err := range c.Monitor().All(context.Background(), hermes.Filter{}) {
			require.NoError(t, err)
			assert.Equal(t, 1, m.Claims)
		}
	})
}
