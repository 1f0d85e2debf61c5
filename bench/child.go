package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"time"

	"gorm.io/driver/postgres"

	"github.com/hermeshttp/hermes"
)

// childEnv makes this program a child: a process that waits for the word, makes one pass over a table, and reports.
const childEnv = "HERMES_BENCH_CHILD"

// task is what a child is told first. It answers with an empty value when it is ready, and begins when it gets one back.
type task struct {
	DSN    string
	Keys   bool // report what was sent, which takes memory
	Memory bool // watch the memory
}

// passReport is what a child says in the end.
type passReport struct {
	Summary      hermes.RetrySummary
	Sent         int64
	Keys         []string // idempotency keys of what was sent
	Progress     []progress
	MemoryGrowth int64 // bytes above what there was at the start, at most
	Err          string
}

type progress struct {
	Delivered int64
	Elapsed   time.Duration
}

// child is the other end of a process that makes a pass.
type child struct {
	process *exec.Cmd
	in      io.WriteCloser
	out     io.ReadCloser
	answers *json.Decoder
}

// startChild starts a process, which returns ready.
func startChild(ctx context.Context, t task) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	process := exec.CommandContext(ctx, self)
	process.Env = append(os.Environ(), childEnv+"=1")
	process.Stderr = os.Stderr
	in, err := process.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := process.Start(); err != nil {
		return nil, err
	}
	c := &child{process, in, out, json.NewDecoder(out)}
	if err := errors.Join(c.tell(t), c.await()); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

func (c *child) tell(value any) error { return json.NewEncoder(c.in).Encode(value) }

func (c *child) begin() error { return c.tell(struct{}{}) }

// await waits until the process is ready, and then, until the pass has ended.
func (c *child) await() error { return c.answers.Decode(&struct{}{}) }

// report is what the process has to say then.
func (c *child) report() (*passReport, error) {
	var r passReport
	if err := c.answers.Decode(&r); err != nil {
		return nil, err
	}
	if r.Err != "" {
		return nil, errors.New(r.Err)
	}
	return &r, nil
}

// stop ends the process if it has not ended by itself: it has nobody left to talk to.
func (c *child) stop() error { return errors.Join(c.in.Close(), c.out.Close(), c.process.Wait()) }

// beChild is a child's whole life.
func beChild(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	in, out := json.NewDecoder(stdin), json.NewEncoder(stdout)
	var t task
	if err := in.Decode(&t); err != nil {
		return err
	}
	p, err := t.prepare(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(out.Encode(struct{}{}), in.Decode(&struct{}{})); err != nil {
		return err
	}
	p.make(ctx)
	return errors.Join(out.Encode(struct{}{}), out.Encode(p.report))
}

// childPass is a pass as it is made by a child.
type childPass struct {
	task
	client *hermes.Client
	mu     sync.Mutex // of what the receiver notes
	report passReport
}

func (t task) prepare(ctx context.Context) (*childPass, error) {
	p := &childPass{task: t}
	db, err := open(postgres.Open(t.DSN), poolSize)
	if err != nil {
		return nil, err
	}
	p.client, err = hermes.New(db, hermes.WithHTTPClient(&http.Client{Transport: stub{http.StatusOK, p.note}}))
	if err != nil {
		return nil, err
	}
	return p, p.client.Ready(ctx)
}

// note notes what arrives at the receiver.
func (p *childPass) note(req *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report.Sent++
	if p.Keys {
		p.report.Keys = append(p.report.Keys, req.Header.Get("Idempotency-Key"))
	}
}

// make makes the pass.
func (p *childPass) make(ctx context.Context) {
	opts := pass
	opts.Progress = func(s hermes.RetrySummary) {
		p.report.Progress = append(p.report.Progress, progress{s.Delivered, s.Elapsed})
	}
	retry := func() (err error) {
		p.report.Summary, err = p.client.RetryAll(ctx, opts)
		return err
	}
	var err error
	if p.Memory {
		p.report.MemoryGrowth, err = memoryGrowth(retry)
	} else {
		err = retry()
	}
	if err != nil {
		p.report.Err = fmt.Sprintf("%v, after %+v", err, p.report.Summary)
	}
}
