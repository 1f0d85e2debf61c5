package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// What River is fastest with: as many workers as its own benchmark found best, and a producer that hardly rests.
const (
	riverWorkers = 1000
	riverPause   = time.Millisecond
	riverText    = "1,000 workers, FetchCooldown and FetchPollInterval 1 ms, until the last job's completion is stored"
)

// riverJob is a message as a River job.
type riverJob struct {
	URL  string `json:"url"`
	Body string `json:"body"`
}

func (riverJob) Kind() string { return "send" }

// riverWorker sends messages, as a program would that has River for its retries.
type riverWorker struct {
	river.WorkerDefaults[riverJob]
	client *http.Client
}

func (w *riverWorker) Work(ctx context.Context, job *river.Job[riverJob]) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, job.Args.URL, strings.NewReader(job.Args.Body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", contentType)
	return use(w.client.Do(req))
}

// riverQueue is River's table, beside Hermes' in one database.
type riverQueue struct {
	pool *pgxpool.Pool
	http *http.Client
}

func newRiverQueue(ctx context.Context, d *database, transport http.RoundTripper) (*riverQueue, error) {
	config, err := pgxpool.ParseConfig(d.dsn)
	if err != nil {
		return nil, err
	}
	config.MaxConns = poolSize
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	}
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &riverQueue{pool, &http.Client{Transport: transport}}, nil
}

// drain fills the queue with n jobs, and works them.
func (q *riverQueue) drain(ctx context.Context, n int) (sample, error) {
	workers := river.NewWorkers()
	river.AddWorker(workers, &riverWorker{client: q.http})
	client, err := river.NewClient(riverpgxv5.New(q.pool), &river.Config{
		FetchCooldown:     riverPause,
		FetchPollInterval: riverPause,
		Logger:            slog.New(slog.DiscardHandler),
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: riverWorkers}},
		Workers:           workers,
	})
	if err != nil {
		return nil, err
	}
	if err := q.fill(ctx, client, n); err != nil {
		return nil, err
	}
	// An event comes when a job's completion is stored. One that finds the channel full is lost.
	completed, cancel := client.SubscribeConfig(&river.SubscribeConfig{
		ChanSize: n, Kinds: []river.EventKind{river.EventKindJobCompleted},
	})
	defer cancel()
	start := time.Now()
	if err := client.Start(ctx); err != nil {
		return nil, err
	}
	for range n {
		select {
		case <-completed:
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), client.Stop(context.WithoutCancel(ctx)))
		}
	}
	elapsed := time.Since(start)
	if err := errors.Join(client.Stop(ctx), q.checkCompleted(ctx, n)); err != nil {
		return nil, err
	}
	return rate(n, elapsed), nil
}

// fill makes it a queue of n jobs, and no others.
func (q *riverQueue) fill(ctx context.Context, client *river.Client[pgx.Tx], n int) error {
	if _, err := q.pool.Exec(ctx, "TRUNCATE river_job"); err != nil {
		return err
	}
	job := riverJob{URL: hook, Body: string(body)}
	for left := n; left > 0; {
		batch := make([]river.InsertManyParams, min(left, 5000))
		for i := range batch {
			batch[i].Args = job
		}
		if _, err := client.InsertManyFast(ctx, batch); err != nil {
			return err
		}
		left -= len(batch)
	}
	for _, statement := range []string{"VACUUM (ANALYZE) river_job", "CHECKPOINT"} {
		if _, err := q.pool.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

func (q *riverQueue) checkCompleted(ctx context.Context, n int) error {
	var completed int
	err := q.pool.QueryRow(ctx, "SELECT count(*) FROM river_job WHERE state = 'completed'").Scan(&completed)
	if err == nil && completed != n {
		err = fmt.Errorf("%d of %d jobs were completed", completed, n)
	}
	return err
}
