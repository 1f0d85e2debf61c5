// Roundtripper sends mail through somebody else's SDK, Resend's, so that no mail is lost: the SDK gets an http.Client
// that sends through Hermes, and a pass delivers what failed.
//
//	RESEND_API_KEY=… go run ./examples/roundtripper -to you@example.com
//	RESEND_API_KEY=… go run ./examples/roundtripper -pass
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/resend/resend-go/v3"
	"gorm.io/driver/postgres"
	"gorm.io/driver/sqlite"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

func main() {
	dsn := flag.String("db", "file:mail.db?_journal_mode=WAL&_synchronous=FULL&_busy_timeout=5000&_txlock=immediate",
		"DSN of PostgreSQL, as a URL, or SQLite")
	to := flag.String("to", "", "whom to send a mail")
	pass := flag.Bool("pass", false, "retry what is due")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *dsn, os.Getenv("RESEND_API_KEY"), *to, *pass); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, dsn, apiKey, to string, pass bool) (err error) {
	dialector := sqlite.Open(dsn)
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		dialector = postgres.Open(dsn)
	}
	db, err := gorm.Open(dialector)
	if err != nil {
		return err
	}
	m, err := newMailer(db, apiKey)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		err = errors.Join(err, m.client.Shutdown(ctx))
	}()
	if err := m.client.Migrate(ctx); err != nil {
		return err
	}
	if pass {
		summary, err := m.client.RetryAll(ctx, hermes.RetryOptions{RatePerHost: 2}) // more than that Resend answers with 429
		log.Printf("delivered %d, failed %d, invalid %d", summary.Delivered, summary.Failed, summary.Invalid)
		return err
	}
	id, err := m.send(ctx, "welcome/"+to, &resend.SendEmailRequest{
		From: "shop@example.com", To: []string{to}, Subject: "Welcome", Text: "Welcome to the shop.",
	})
	if id != "" {
		log.Printf("not sent, but saved as %s", id)
	}
	return err
}

type mailer struct {
	client *hermes.Client
	sdk    *resend.Client
}

func newMailer(db *gorm.DB, apiKey string) (*mailer, error) {
	client, err := hermes.New(db,
		// What is signed with this key must be Resend's: rows of other services are not this client's.
		hermes.WithSender("mail"),
		// The key is not stored with the message; the SDK has none.
		hermes.WithRequestSigner(func(req *http.Request) error {
			req.Header.Set("Authorization", "Bearer "+apiKey)
			return nil
		}),
		// 409: the first request with this idempotency key is still being worked on. 429: too many at a time.
		hermes.WithPolicy(hermes.RetryStatus(hermes.DefaultPolicy, http.StatusConflict, http.StatusTooManyRequests)),
		// Somebody waits for the call: one more attempt at once, then it is a row.
		hermes.WithMaxRetryAttempts(1), hermes.WithRetryInterval(time.Second),
		hermes.WithHooks(hermes.Hooks{Saved: func(ctx context.Context, info hermes.SavedInfo) {
			if id, ok := ctx.Value(savedID{}).(*string); ok {
				*id = info.MessageID
			}
		}}),
	)
	if err != nil {
		return nil, err
	}
	// Resend remembers an idempotency key for a day: the last retry is before that.
	transport := client.Transport(hermes.Schedule(time.Minute, 10*time.Minute, time.Hour, 6*time.Hour, 12*time.Hour))
	// No Timeout here: it would bound all attempts together. This SDK does not retry; in one that does, switch that off,
	// or each of its retries becomes a message, and a row, of its own.
	return &mailer{client, resend.NewCustomClient(&http.Client{Transport: transport}, "")}, nil
}

// savedID is the key of a context's *string that the Saved hook sets.
type savedID struct{}

// send returns a nil error if the mail is sent or saved, and the row's ID if it is saved. The SDK's own error cannot tell
// a mail that is lost from one that is not: to an SDK both have failed.
func (m *mailer) send(ctx context.Context, key string, mail *resend.SendEmailRequest) (id string, err error) {
	ctx = context.WithValue(ctx, savedID{}, &id)
	_, err = m.sdk.Emails.SendWithOptions(ctx, mail, &resend.SendEmailOptions{IdempotencyKey: key})
	if id != "" {
		log.Printf("sending mail: %v", err)
		err = nil
	}
	return id, err
}
