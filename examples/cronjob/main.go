// Cronjob retries what is due, every minute. Run it on any number of instances: each row is claimed by one of them.
//
//	go run ./examples/cronjob -db postgres://user@localhost/app
package main

import (
	"context"
	"flag"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/robfig/cron/v3"
	"gorm.io/driver/postgres"
	"gorm.io/driver/sqlite"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

const (
	sender      = "" // WithSender of the services whose messages are retried
	stopTimeout = 20 * time.Second
)

func main() {
	// WAL lets readers go on beside a writer, FULL keeps a commit through a power cut, immediate transactions wait for
	// the write lock instead of failing.
	dsn := flag.String("db", "file:hermes.db?_journal_mode=WAL&_synchronous=FULL&_busy_timeout=5000&_txlock=immediate",
		"DSN of PostgreSQL, as a URL, or SQLite")
	schedule := flag.String("schedule", "* * * * *", `when to make a pass, as for cron; or "@every 90s"`)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *dsn, *schedule); err != nil {
		log.Fatal(err)
	}
}

// run makes passes until ctx ends, and waits for the one under way.
func run(ctx context.Context, dsn, schedule string) error {
	db, err := open(dsn)
	if err != nil {
		return err
	}
	client, err := hermes.New(db, hermes.WithSender(sender), hermes.WithLogger(slog.Default()))
	if err != nil {
		return err
	}
	if err := client.Migrate(ctx); err != nil {
		return err
	}

	// A pass may take longer than until the next one: that is left out then. Recover is the inner one, as a panic that
	// passes through SkipIfStillRunning would have every later pass skipped.
	logger := cron.PrintfLogger(log.Default())
	passes := cron.New(cron.WithChain(cron.SkipIfStillRunning(logger), cron.Recover(logger)))
	// A signal does not cancel a pass, for that would break off requests that the receiver is working on: Shutdown ends
	// it, and lets these finish.
	unsignaled := context.WithoutCancel(ctx)
	if _, err := passes.AddFunc(schedule, func() { pass(unsignaled, db, client) }); err != nil {
		return err
	}
	passes.Start()
	slog.Info("started", "schedule", schedule)

	<-ctx.Done()
	slog.Info("stopping")
	ended := passes.Stop().Done()
	ctx, cancel := context.WithTimeout(unsignaled, stopTimeout)
	defer cancel()
	if err := client.Shutdown(ctx); err != nil {
		return err
	}
	<-ended // it has nothing left to do but to log its summary
	return nil
}

// pass retries each row that is due once.
func pass(ctx context.Context, db *gorm.DB, client *hermes.Client) {
	summary, err := client.RetryAll(ctx, hermes.RetryOptions{})
	late, lateErr := oldestDue(ctx, db)
	slog.Info("pass", "delivered", summary.Delivered, "failed", summary.Failed, "invalid", summary.Invalid,
		"released", summary.Released, "elapsed", summary.Elapsed, "oldest_due", late)
	if err != nil {
		slog.Error("pass ended early; the next goes on where it stopped", "error", err)
	}
	if lateErr != nil {
		slog.Error("looking for the oldest row", "error", lateErr)
	}
}

// oldestDue tells for how long the row that waits longest has been due. If that grows from pass to pass, passes do not
// keep up, or a host is dead.
func oldestDue(ctx context.Context, db *gorm.DB) (time.Duration, error) {
	var oldest []hermes.FailedMessage
	err := db.WithContext(ctx).Select("next_attempt_at").
		Where("sender = ? AND next_attempt_at <= ?", sender, time.Now().UTC()).
		Order("next_attempt_at").Limit(1).Find(&oldest).Error
	if err != nil || len(oldest) == 0 {
		return 0, err
	}
	return time.Since(*oldest[0].NextAttemptAt), nil
}

func open(dsn string) (*gorm.DB, error) {
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		return gorm.Open(postgres.Open(dsn))
	}
	return gorm.Open(sqlite.Open(dsn))
}
