// Command riversqlite lets River work jobs that wait in a SQLite file, and prints how many seconds it took. It is a
// program, and a module, of its own because River's SQLite driver is of another version of River than its PostgreSQL
// driver.
//
//	riversqlite FILE JOBS
package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	_ "github.com/mattn/go-sqlite3"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: riversqlite FILE JOBS")
	}
	n, err := strconv.Atoi(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	elapsed, err := run(context.Background(), os.Args[1], n)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(elapsed.Seconds())
}

// run makes n jobs and works them.
func run(ctx context.Context, file string, n int) (time.Duration, error) {
	db, err := sql.Open("sqlite3", "file:"+file+"?_journal_mode=WAL&_synchronous=FULL&_busy_timeout=10000&_txlock=immediate")
	if err != nil {
		return 0, err
	}
	db.SetMaxOpenConns(1) // as River's documentation wants it
	client, err := newClient(ctx, db)
	if err != nil {
		return 0, err
	}
	if err := fill(ctx, client, n); err != nil {
		return 0, err
	}
	if _, err := db.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		return 0, err
	}
	elapsed, err := work(ctx, client, n)
	if err != nil {
		return 0, err
	}
	return elapsed, errors.Join(checkCompleted(ctx, db, n), db.Close())
}

func newClient(ctx context.Context, db *sql.DB) (*river.Client[*sql.Tx], error) {
	driver, quiet := riversqlite.New(db), slog.New(slog.DiscardHandler)
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: quiet})
	if err != nil {
		return nil, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{client: &http.Client{Transport: stub{}}})
	return river.NewClient(driver, &river.Config{
		FetchCooldown:     time.Millisecond,
		FetchPollInterval: time.Millisecond,
		Logger:            quiet,
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 1000}},
		Workers:           workers,
	})
}

func fill(ctx context.Context, client *river.Client[*sql.Tx], n int) error {
	args := job{URL: "http://receiver.example/hook", Body: strings.Repeat("x", 1024)}
	for left := n; left > 0; {
		batch := make([]river.InsertManyParams, min(left, 1000))
		for i := range batch {
			batch[i].Args = args
		}
		if _, err := client.InsertMany(ctx, batch); err != nil { // InsertManyFast panics here
			return err
		}
		left -= len(batch)
	}
	return nil
}

// work works all jobs. An event comes when a job's completion is stored; one that finds the channel full is lost.
func work(ctx context.Context, client *river.Client[*sql.Tx], n int) (time.Duration, error) {
	completed, cancel := client.SubscribeConfig(&river.SubscribeConfig{
		ChanSize: n, Kinds: []river.EventKind{river.EventKindJobCompleted},
	})
	defer cancel()
	start := time.Now()
	if err := client.Start(ctx); err != nil {
		return 0, err
	}
	for range n {
		<-completed
	}
	elapsed := time.Since(start)
	return elapsed, client.Stop(ctx)
}

func checkCompleted(ctx context.Context, db *sql.DB, n int) error {
	var completed int
	err := db.QueryRowContext(ctx, "SELECT count(*) FROM river_job WHERE state = 'completed'").Scan(&completed)
	if err == nil && completed != n {
		err = fmt.Errorf("%d of %d jobs were completed", completed, n)
	}
	return err
}

// job is a message.
type job struct {
	URL  string `json:"url"`
	Body string `json:"body"`
}

func (job) Kind() string { return "send" }

// worker sends messages.
type worker struct {
	river.WorkerDefaults[job]
	client *http.Client
}

func (w *worker) Work(ctx context.Context, job *river.Job[job]) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, job.Args.URL, strings.NewReader(job.Args.Body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := w.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.ReadAll(resp.Body)
	return err
}

// stub answers with two bytes, having read the body.
type stub struct{}

func (stub) RoundTrip(req *http.Request) (*http.Response, error) {
	_, err := io.Copy(io.Discard, req.Body)
	if err := errors.Join(err, req.Body.Close()); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/plain"}}, ContentLength: 2,
		Body: io.NopCloser(bytes.NewReader([]byte("ok"))), Request: req}, nil
}
