// Quickstart shows in a few seconds what Hermes does: it sends messages to a receiver that fails in every way, looks at
// what was saved, and retries that when the receiver is back.
//
//	go run ./examples/quickstart
//
// By itself it uses a SQLite file in a temporary folder and a receiver of its own. Against something real:
//
//	go run ./examples/quickstart -url https://example.com/hook -db postgres://user@localhost/app
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/driver/sqlite"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

func main() {
	target := flag.String("url", "", "where to send to; by default to a flaky receiver of the program's own")
	dsn := flag.String("db", "", "PostgreSQL DSN or SQLite file; by default a temporary SQLite file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, *target, *dsn); err != nil {
		log.Fatal(err)
	}
}

// demo is a service that sends messages and tells of it.
type demo struct {
	client *hermes.Client
	out    io.Writer
}

func run(ctx context.Context, out io.Writer, target, dsn string) error {
	if dsn == "" {
		folder, err := os.MkdirTemp("", "hermes-quickstart")
		if err != nil {
			return err
		}
		defer os.RemoveAll(folder)
		dsn = filepath.Join(folder, "hermes.db")
	}
	db, err := open(dsn)
	if err != nil {
		return err
	}
	client, err := hermes.New(db,
		hermes.WithMaxRetryAttempts(3),
		hermes.WithRetryInterval(200*time.Millisecond), // 10 s by default; this is a demonstration
	)
	if err != nil {
		return err
	}
	if err := client.Migrate(ctx); err != nil {
		return err
	}
	fmt.Fprintln(out, "database:", describe(dsn))
	d := &demo{client, out}
	if target != "" {
		return d.sendOne(ctx, target)
	}
	return d.demonstrate(ctx)
}

// demonstrate sends to a receiver that is flaky, and runs a job when it is well again.
func (d *demo) demonstrate(ctx context.Context) error {
	receiver := startFlakyReceiver()
	defer receiver.Close()

	fmt.Fprintln(d.out, "\n1. Four messages")
	for _, path := range []string{"/healthy", "/flaky", "/picky", "/down"} {
		if err := d.send(ctx, receiver.URL+path); err != nil {
			return err
		}
	}
	if err := d.printTable(ctx); err != nil {
		return err
	}

	fmt.Fprintln(d.out, "\n2. The receiver is back, and a job retries what is due")
	receiver.recover()
	if err := d.retryDue(ctx); err != nil {
		return err
	}
	if err := d.printTable(ctx); err != nil {
		return err
	}
	fmt.Fprintln(d.out, "\nWhat was refused stays until a person decides: Client.Reschedule or Client.PurgeMessage.")
	return nil
}

// sendOne sends one message to where the user said, and runs a job if it failed.
func (d *demo) sendOne(ctx context.Context, target string) error {
	if err := d.send(ctx, target); err != nil {
		return err
	}
	if err := d.retryDue(ctx); err != nil {
		return err
	}
	return d.printTable(ctx)
}

// send is what a service does in place of http.Client.Do.
func (d *demo) send(ctx context.Context, target string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(`{"amount": 42}`))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	start := time.Now()
	resp, err := d.client.SendMessage(req, hermes.Metadata(map[string]string{"order": "4711"}))
	if err != nil {
		return err // neither delivered nor saved
	}
	fmt.Fprintf(d.out, "   POST %-9s %-28s after %v\n", req.URL.Path, verdict(resp), time.Since(start).Round(10*time.Millisecond))
	return nil
}

func verdict(resp *hermes.Response) string {
	attempts := fmt.Sprintf("%d attempt", resp.Attempts)
	if resp.Attempts != 1 {
		attempts += "s"
	}
	switch {
	case resp.Succeeded():
		return "delivered, " + attempts
	case resp.Invalid():
		return fmt.Sprintf("refused (%d), %s, saved", resp.StatusCode, attempts)
	case resp.StatusCode == 0:
		return "no answer, " + attempts + ", saved"
	}
	return fmt.Sprintf("failed (%d), %s, saved", resp.StatusCode, attempts)
}

// retryDue is a retry job: gather what is due, retry each message. Run it every minute, on as many instances as you like.
func (d *demo) retryDue(ctx context.Context) error {
	for {
		msgs, err := d.client.GatherFailedMessagesForRetry(ctx, hermes.GatherOptions{})
		if err != nil || len(msgs) == 0 {
			return err
		}
		for _, msg := range msgs {
			resp, err := d.client.RetryMessage(ctx, msg)
			if errors.Is(err, hermes.ErrClaimLost) {
				continue // another instance has it
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(d.out, "   %s %s: %s\n", msg.ID, msg.Method, verdict(resp))
		}
	}
}

func (d *demo) printTable(ctx context.Context) error {
	fmt.Fprintln(d.out, "\n   failed_message:")
	empty := true
	for msg, err := range d.client.Monitor().All(ctx, hermes.Filter{}) {
		if err != nil {
			return err
		}
		empty = false
		fmt.Fprintf(d.out, "   %s  %-7s  status %3d  attempts %d  %s\n", msg.ID, msg.State(), msg.StatusCode, msg.Attempts, msg.Host)
	}
	if empty {
		fmt.Fprintln(d.out, "   (empty)")
	}
	return nil
}

func open(dsn string) (*gorm.DB, error) {
	if isPostgres(dsn) {
		return gorm.Open(postgres.Open(dsn))
	}
	// WAL lets readers go on beside a writer, FULL keeps a commit through a power cut, immediate transactions wait for
	// the write lock instead of failing.
	file := url.URL{Scheme: "file", Opaque: (&url.URL{Path: dsn}).EscapedPath(), RawQuery: "_journal_mode=WAL&_synchronous=FULL&_busy_timeout=5000&_txlock=immediate"}
	return gorm.Open(sqlite.Open(file.String()))
}

func isPostgres(dsn string) bool {
	return strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") || strings.Contains(dsn, "host=")
}

func describe(dsn string) string {
	if isPostgres(dsn) {
		return "PostgreSQL"
	}
	return "SQLite, " + dsn
}
