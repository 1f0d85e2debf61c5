// River retries what is due by a periodic job of River's, on PostgreSQL. Run it on any number of instances: River lets
// one at a time make a pass, which keeps RatePerHost and PerHost true for all of them together.
//
//	go run ./examples/river -db postgres://user@localhost/app -migrate   # once
//	go run ./examples/river -db postgres://user@localhost/app
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

const (
	queue       = "hermes"         // of its own, so that other jobs do not hold up passes
	passTimeout = 30 * time.Minute // a pass that is cut off gives its rows back, and the next goes on with them
	stopTimeout = 20 * time.Second
)

func main() {
	dsn := flag.String("db", os.Getenv("DATABASE_URL"), "DSN of PostgreSQL")
	every := flag.Duration("every", time.Minute, "how often to make a pass")
	migrateOnly := flag.Bool("migrate", false, "make River's and Hermes' tables, and end")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *dsn, *every, *migrateOnly); err != nil {
		log.Fatal(err)
	}
}

// run makes passes until ctx ends, and waits for the one under way.
func run(ctx context.Context, dsn string, every time.Duration, migrateOnly bool) error {
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return err
	}
	defer pool.Close()
	shared := stdlib.OpenDBFromPool(pool) // one pool for River, GORM and Hermes
	defer shared.Close()
	db, err := gorm.Open(postgres.New(postgres.Config{Conn: shared}))
	if err != nil {
		return err
	}
	client, err := hermes.New(db, hermes.WithLogger(slog.Default()))
	if err != nil {
		return err
	}
	if migrateOnly {
		return migrate(ctx, pool, client)
	}

	workers := river.NewWorkers()
	river.AddWorker(workers, &passWorker{client: client})
	jobs, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Queues:  map[string]river.QueueConfig{queue: {MaxWorkers: 1}},
		Workers: workers,
		PeriodicJobs: []*river.PeriodicJob{river.NewPeriodicJob(river.PeriodicInterval(every),
			func() (river.JobArgs, *river.InsertOpts) { return passArgs{}, nil }, &river.PeriodicJobOpts{RunOnStart: true})},
		SoftStopTimeout: stopTimeout, // without it a signal would break off the requests that are under way
		Logger:          slog.Default(),
	})
	if err != nil {
		return err
	}
	if err := jobs.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	// A pass ends with the client: attempts in flight finish, the rest is given back.
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err = client.Shutdown(stopping)
	<-jobs.Stopped()
	return err
}

func migrate(ctx context.Context, pool *pgxpool.Pool, client *hermes.Client) error {
	tables, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	if err != nil {
		return err
	}
	if _, err := tables.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return err
	}
	return client.Migrate(ctx)
}

// passArgs are the job's: none, a pass takes what is due.
type passArgs struct{}

// Kind implements river.JobArgs.
func (passArgs) Kind() string { return "hermes_pass" }

// InsertOpts has one pass in the cluster at a time, waiting or running; the state "completed", which River counts by
// default, would keep out every later one. A pass that failed is not repeated: the next one comes soon.
func (passArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: queue, MaxAttempts: 1, UniqueOpts: river.UniqueOpts{ByState: []rivertype.JobState{
		rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRunning, rivertype.JobStateScheduled}}}
}

type passWorker struct {
	river.WorkerDefaults[passArgs]
	client *hermes.Client
}

// Timeout is River's bound of a job, by default a minute: less than a large backlog takes.
func (w *passWorker) Timeout(*river.Job[passArgs]) time.Duration { return passTimeout }

// Work makes a pass.
func (w *passWorker) Work(ctx context.Context, job *river.Job[passArgs]) error {
	summary, err := w.client.RetryAll(ctx, hermes.RetryOptions{})
	slog.Info("pass", "job", job.ID, "delivered", summary.Delivered, "failed", summary.Failed, "invalid", summary.Invalid,
		"released", summary.Released, "elapsed", summary.Elapsed)
	if errors.Is(err, hermes.ErrShutdown) {
		return nil // what is left is due at another instance
	}
	return err
}
