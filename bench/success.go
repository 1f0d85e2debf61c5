package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"runtime"
	"time"

	"gorm.io/driver/sqlite"
)

func checkStatus(code int) error {
	if code/100 != 2 {
		return fmt.Errorf("status %d", code)
	}
	return nil
}

func successOnStub(_ context.Context, l *lab) (*contest, error) {
	c, clients, err := successContest(l, l.pick(2000, 200), func() http.RoundTripper { return stub{status: http.StatusOK} })
	if err != nil {
		return nil, err
	}
	c.rounds = l.pick(101, 3)
	for _, client := range clients {
		c.goals = append(c.goals, ratio(nsPerOp, own, client.name, below, 1), ratio(allocsPerOp, own, client.name, below, 1))
	}
	c.goals = append(c.goals, ratio(nsPerOp, own, bare, atMost, 1.3))
	return c, nil
}

func successOnLoopback(ctx context.Context, l *lab) (*contest, error) {
	receiver, err := startReceiver(ctx)
	if err != nil {
		return nil, err
	}
	c, _, err := successContest(l, l.pick(500, 50), func() http.RoundTripper { return receiver.transport(1) })
	if err != nil {
		return nil, errors.Join(err, receiver.stop())
	}
	c.rounds = l.pick(101, 3)
	c.goals = []goal{ratio(nsPerOp, own, bare, atMost, 1.05)}
	closeDB := c.end
	c.end = func() error { return errors.Join(closeDB(), receiver.stop()) }
	return c, nil
}

// successContest lets everyone send messages, one at a time, each over a transport of its own.
func successContest(l *lab, n int, newTransport func() http.RoundTripper) (*contest, []peer, error) {
	db, err := open(sqlite.Open(filepath.Join(l.dir, "unused.db")), 1)
	if err != nil {
		return nil, nil, err
	}
	send, err := hermesClient(db, newTransport())
	if err != nil {
		return nil, nil, errors.Join(err, closeDB(db))
	}
	clients := retryClients(newTransport)
	c := &contest{
		conditions: fmt.Sprintf("%s messages a turn, one at a time; everyone reads the whole answer, and would retry %d times after %s, "+
			"with %s for each attempt", number(n), retries, wait, limit),
		metrics: []metric{nsPerOp, bytesPerOp, allocsPerOp},
		end:     func() error { return closeDB(db) },
	}
	for _, p := range append([]peer{{bare, bareClient(newTransport())}, {own, send}}, clients...) {
		c.contestants = append(c.contestants, contestant{p.name, func(context.Context) (sample, error) { return perOp(n, p.send) }})
	}
	return c, clients, nil
}

// perOp tells what it costs to do something, done n times. The garbage of those before is not counted, one's own is.
func perOp(n int, do func() error) (sample, error) {
	if err := do(); err != nil { // the first time is no measure: there is no connection yet
		return nil, err
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	for range n {
		if err := do(); err != nil {
			return nil, err
		}
	}
	elapsed := time.Since(start)
	runtime.ReadMemStats(&after)
	return sample{
		nsPerOp:     float64(elapsed) / float64(n),
		bytesPerOp:  float64(after.TotalAlloc-before.TotalAlloc) / float64(n),
		allocsPerOp: float64(after.Mallocs-before.Mallocs) / float64(n),
	}, nil
}
