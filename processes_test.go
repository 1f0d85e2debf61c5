package hermes_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

// The environment of a second process: what it is to do, and on which database.
const (
	roleEnv = "HERMES_TEST_ROLE"
	dsnEnv  = "HERMES_TEST_DSN"
)

// report is what a process has done.
type report struct {
	IDs     []string // gathered, in order
	Elapsed time.Duration
	Errors  []string
}

// roles are what a process can be started for, once all are ready.
var roles = map[string]func(t *testing.T, c *hermes.Client, r *report) error{
	"gather": func(_ *testing.T, c *hermes.Client, r *report) error {
		for {
			msgs, err := c.GatherFailedMessagesForRetry(context.Background(), hermes.GatherOptions{})
			if err != nil || len(msgs) == 0 || len(r.IDs) > 100_000 {
				return err
			}
			r.IDs = append(r.IDs, idsOf(msgs)...)
		}
	},
	"migrate": func(t *testing.T, _ *hermes.Client, r *report) error {
		var wg sync.WaitGroup
		errs := make(chan error, 8)
		for range cap(errs) {
			c, err := hermes.New(testdb.Open(t, os.Getenv(dsnEnv)))
			require.NoError(t, err)
			wg.Go(func() { errs <- c.Migrate(context.Background()) })
		}
		wg.Wait()
		close(errs)
		for err := range errs {
			if err != nil {
				r.Errors = append(r.Errors, err.Error())
			}
		}
		return nil
	},
	"retry all": func(t *testing.T, _ *hermes.Client, r *report) error {
		sum, err := itsClient(t).RetryAll(context.Background(), hermes.RetryOptions{})
		r.IDs = append(r.IDs, fmt.Sprint(sum.Delivered, sum.Failed, sum.Released))
		return err
	},
	"send": func(t *testing.T, _ *hermes.Client, r *report) error {
		mode, err := strconv.Atoi(os.Getenv(modeEnv))
		require.NoError(t, err)
		c := itsClient(t, hermes.WithDurability(hermes.Durability(mode)), hermes.WithRetryInterval(time.Minute))
		_, err = c.SendMessage(post(t, os.Getenv(urlEnv), "hello"))
		return err
	},
	"retry one": func(t *testing.T, _ *hermes.Client, r *report) error {
		c := itsClient(t, hermes.WithMaxRetryAttempts(1), hermes.WithRequestTimeout(time.Minute), hermes.WithClaimTTL(time.Hour))
		msgs := gather(t, c, hermes.GatherOptions{})
		require.Len(t, msgs, 1)
		_, err := c.RetryMessage(context.Background(), msgs[0])
		return err
	},
	"retry one by one, at a rate": func(t *testing.T, _ *hermes.Client, r *report) error {
		c := itsClient(t)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		sum, err := c.RetryAll(context.Background(), hermes.RetryOptions{Concurrency: 1, RatePerHost: 50})
		runtime.ReadMemStats(&after)
		r.IDs = append(r.IDs, fmt.Sprint(sum.Delivered, after.Mallocs-before.Mallocs))
		return err
	},
}

// TestInAnotherProcess is what a second process runs: it says that it is ready, waits until it may begin, and reports.
func TestInAnotherProcess(t *testing.T) {
	role := roles[os.Getenv(roleEnv)]
	if role == nil {
		return
	}
	c, err := hermes.New(testdb.Open(t, os.Getenv(dsnEnv)), hermes.WithClaimTTL(time.Hour))
	require.NoError(t, err)
	fmt.Println("ready")
	_, err = io.ReadAll(os.Stdin)
	require.NoError(t, err)
	var r report
	start := time.Now()
	if err := role(t, c, &r); err != nil {
		r.Errors = append(r.Errors, err.Error())
	}
	r.Elapsed = time.Since(start)
	require.NoError(t, json.NewEncoder(os.Stdout).Encode(r))
}

// inProcesses has a role done by that many processes at the same time.
func inProcesses(t *testing.T, n int, role, dsn string) []report {
	t.Helper()
	type process struct {
		cmd   *osexec.Cmd
		begin io.Closer
		out   *bufio.Reader
	}
	all := make([]process, n)
	for i := range all {
		cmd := osexec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestInAnotherProcess$", "-test.timeout=5m")
		cmd.Env = append(os.Environ(), roleEnv+"="+role, dsnEnv+"="+dsn)
		cmd.Stderr = os.Stderr
		begin, err := cmd.StdinPipe()
		require.NoError(t, err)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		all[i] = process{cmd, begin, bufio.NewReader(out)}
	}
	for _, p := range all {
		line, err := p.out.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "ready\n", line)
	}
	for _, p := range all {
		require.NoError(t, p.begin.Close())
	}
	reports := make([]report, n)
	for i, p := range all {
		line, err := p.out.ReadBytes('\n')
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(line, &reports[i]))
		_, err = io.Copy(io.Discard, p.out)
		require.NoError(t, err)
		require.NoError(t, p.cmd.Wait())
		assert.Empty(t, reports[i].Errors)
	}
	return reports
}
