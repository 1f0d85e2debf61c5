package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

// pass is how Hermes retries here: as all rows are for one host, all attempts may go there.
var pass = hermes.RetryOptions{Concurrency: 64, PerHost: 64, BatchSize: 1000}

// Names of those who drain that goals refer to.
const (
	byHermes = "Hermes RetryAll"
	byRiver  = "River"
)

func drainPostgresToStub(ctx context.Context, l *lab) (*contest, error) {
	transport := stub{status: http.StatusOK}
	return drainPostgres(ctx, l, transport, transport, 4)
}

func drainPostgresToLoopback(ctx context.Context, l *lab) (*contest, error) {
	receiver, err := startReceiver(ctx)
	if err != nil {
		return nil, err
	}
	c, err := drainPostgres(ctx, l, receiver.transport(pass.PerHost), receiver.transport(riverWorkers), 3)
	if err != nil {
		return nil, errors.Join(err, receiver.stop())
	}
	endDrain := c.end
	c.end = func() error { return errors.Join(endDrain(), receiver.stop()) }
	return c, nil
}

// drainPostgres lets Hermes and River send what waits in their tables, each over a transport of its own.
func drainPostgres(ctx context.Context, l *lab, ours, theirs http.RoundTripper, goalRatio float64) (*contest, error) {
	n := l.pick(50_000, 2000)
	t, err := l.newTable(ctx, poolSize)
	if err != nil {
		return nil, err
	}
	queue, err := newRiverQueue(ctx, t.database, theirs)
	if err != nil {
		return nil, errors.Join(err, t.end())
	}
	end := func() error { queue.pool.Close(); return t.end() }
	client, err := hermes.New(t.db, hermes.WithHTTPClient(&http.Client{Transport: ours}))
	if err != nil {
		return nil, errors.Join(err, end())
	}
	return &contest{
		conditions: fmt.Sprintf("%s rows a turn; %d connections each; Hermes: %s; River: %s", number(n), poolSize, passText(), riverText),
		rounds:     l.pick(5, 1),
		metrics:    []metric{perSecond},
		contestants: []contestant{
			{byHermes, func(ctx context.Context) (sample, error) {
				if err := t.fill(ctx, n); err != nil {
					return nil, err
				}
				return drain(ctx, client, t.db, n)
			}},
			{byRiver, func(ctx context.Context) (sample, error) { return queue.drain(ctx, n) }},
		},
		goals: []goal{ratio(perSecond, byHermes, byRiver, atLeast, goalRatio)},
		end:   end,
	}, nil
}

func passText() string {
	return fmt.Sprintf("Concurrency %d, PerHost %d, BatchSize %d", pass.Concurrency, pass.PerHost, pass.BatchSize)
}

// drain retries all n rows of a table.
func drain(ctx context.Context, client *hermes.Client, db *gorm.DB, n int) (sample, error) {
	start := time.Now()
	summary, err := client.RetryAll(ctx, pass)
	elapsed := time.Since(start)
	if err != nil {
		return nil, err
	}
	left, err := remaining(db.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if summary.Delivered != int64(n) || left != 0 {
		return nil, fmt.Errorf("of %d rows %d are left, and the summary is %+v", n, left, summary)
	}
	return rate(n, elapsed), nil
}

func drainSQLite(ctx context.Context, l *lab) (*contest, error) {
	n := l.pick(20_000, 1000)
	db, err := openSQLite(filepath.Join(l.dir, "drain.db"))
	if err != nil {
		return nil, err
	}
	end := func() error { return closeDB(db) }
	template, err := newTemplate(ctx, db)
	if err != nil {
		return nil, errors.Join(err, end())
	}
	client, err := hermes.New(db, hermes.WithHTTPClient(&http.Client{Transport: stub{status: http.StatusOK}}))
	if err != nil {
		return nil, errors.Join(err, end())
	}
	program, err := buildRiverSQLite(ctx, l.dir)
	if err != nil {
		return nil, errors.Join(err, end())
	}
	return &contest{
		conditions: fmt.Sprintf("%s rows a turn; WAL, synchronous FULL; Hermes: 1 connection, %s; River: %s", number(n), passText(), program.text()),
		rounds:     l.pick(5, 1),
		metrics:    []metric{perSecond},
		contestants: []contestant{
			{byHermes, func(ctx context.Context) (sample, error) {
				if err := create(ctx, db, template.rows(n), 100); err != nil {
					return nil, err
				}
				if err := settle(db.WithContext(ctx), tableName); err != nil {
					return nil, err
				}
				return drain(ctx, client, db, n)
			}},
			{byRiver, func(ctx context.Context) (sample, error) { return program.drain(ctx, n) }},
		},
		goals: []goal{ratio(perSecond, byHermes, byRiver, atLeast, 2)},
		end:   end,
	}, nil
}
