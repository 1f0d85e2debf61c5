// Package hermes sends HTTP requests that must not be lost. A service calls [Client.SendMessage] where it would call
// http.Client.Do, or gives [Client.Transport] to code that brings its own http.Client.
//
// # The contract
//
// SendMessage returns a nil error if and only if the message was delivered or is a row in the table failed_message.
// Delivered is what was answered with a 2xx status. A message carries one idempotency key for ever, over every attempt,
// retry and job: it is sent at least once, and processed once by a receiver that honours the key.
//
// # Sending
//
// An attempt that got no answer, or a 5xx, is repeated: by default five times, ten seconds apart, five seconds each. A
// 4xx, or a redirect that would change the message, is not: as it is, the message cannot succeed. What fails for good is
// saved through GORM, in PostgreSQL or SQLite, with all that is needed to send it again. The [Response] tells how it went,
// and [Response.Err] why it failed.
//
// A process that is killed loses what was not a row by then: [WithDurability] says when a message becomes one.
// [Client.Enqueue] makes a message a row without sending it, in a transaction of the caller's if need be.
//
// Who disagrees with what a status means sets a [Policy]; [RetryStatus] is the common one.
//
// # Retrying
//
// The library starts no job. A job of one's own calls [Client.RetryAll], which makes a pass over what is due, or gathers
// rows and retries them one by one, see the example of [Client.GatherFailedMessagesForRetry]. Rows are claimed, so that any
// number of instances can run the same job at once, and no message is sent by two of them at a time. A message that is
// delivered leaves the table.
//
// A row is due at once when it is saved, and after each retry that failed by [WithRedeliveryBackoff], or by its own
// [Schedule]; a receiver's Retry-After postpones it. Each row has one [State]: due, waiting, claimed, invalid, exhausted.
// What is invalid or exhausted stays until a person decides: [Client.Reschedule] or [Client.Purge].
//
// # Looking
//
// [Monitor] lists, counts and finds rows by [Filter]; there are canned ones, such as [InvalidMessages]. [FailedMessage]
// is also a GORM model for queries of one's own. Logs ([WithLogger]), errors and [Hooks] never show header values,
// bodies, or a URL's userinfo and query.
//
// # Secrets
//
// A message is stored as it was sent, its headers included. What must not be stored is added to every attempt by
// [WithRequestSigner].
package hermes

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"time"

	"gorm.io/gorm"

	"github.com/hermeshttp/hermes/internal/schema"
	"github.com/hermeshttp/hermes/internal/wire"
)

// Client sends messages, keeps what failed, and retries it. It starts no goroutine of its own and is safe for
// concurrent use. Make one with New, and one only for each database and sender.
type Client struct {
	*config
	store          *store
	saves          *groupCommit
	wire           *wire.Client
	attemptTimeout time.Duration

	mu      sync.Mutex
	active  map[*outgoing]struct{} // messages on their way, saving included
	stopped chan struct{}          // closed when Shutdown was called: nothing new, no more waiting
	aborted bool                   // attempts in flight were canceled
	idle    chan struct{}          // closed when stopped and nothing is active
}

// New returns a client that keeps what it cannot deliver in db, a PostgreSQL or SQLite database opened through GORM. It
// uses db's connections in sessions of its own: db's logger, callbacks and settings do not apply. It does not touch the
// database; call Migrate once before the first message.
//
// It fails with an error that matches ErrInvalidOption, for every bad option at once, if db is nil, a transaction or a
// DryRun session, or is of another kind of database.
func New(db *gorm.DB, opts ...Option) (*Client, error) {
	cfg, err := newConfig(opts)
	st, storeErr := newStore(db)
	if err := errors.Join(storeErr, err); err != nil {
		return nil, err
	}
	st.saveTimeout = cfg.saveTimeout
	timeout := cfg.requestTimeout
	if own := cfg.httpClient.Timeout; own > 0 {
		timeout = min(timeout, own)
	}
	return &Client{
		config:         cfg,
		store:          st,
		saves:          &groupCommit{store: st},
		attemptTimeout: timeout,
		wire: &wire.Client{
			HTTP:             cfg.httpClient,
			Schemes:          cfg.schemes,
			Sign:             cfg.signer,
			IsSensitive:      func(name string) bool { return cfg.sensitive[name] },
			MaxResponseBytes: cfg.maxResponseBytes,
		},
		active:  map[*outgoing]struct{}{},
		stopped: make(chan struct{}),
		idle:    make(chan struct{}),
	}, nil
}

// Migrate brings the tables to this version of the library: failed_message, and hermes_migration, which records what
// was applied. It can be called at every start, by several processes at once; it keeps all data and whatever else is in
// the tables. Users with a migration tool of their own can apply Migrations instead.
func (c *Client) Migrate(ctx context.Context) error {
	return schema.Migrate(ctx, c.store.db, c.store.dialect)
}

// Ready tells whether the database answers and its schema is current, for a health check. The error matches
// ErrSchemaOutdated if Migrate was not called.
func (c *Client) Ready(ctx context.Context) error {
	return c.store.ready(ctx)
}

// Migration is one step of the schema, as SQL to be applied once, in order. It records itself in hermes_migration.
type Migration struct {
	Version int // from 1
	Name    string
	SQL     string
}

// Migrations returns all steps of the schema for "postgres" or "sqlite".
func Migrations(dialectName string) ([]Migration, error) {
	d, err := dialectFor(dialectName)
	if err != nil {
		return nil, err
	}
	steps, err := schema.All(d)
	if err != nil {
		return nil, err
	}
	all := make([]Migration, len(steps))
	for i, step := range steps {
		all[i] = Migration(step)
	}
	return all, nil
}

// SendMessage sends req and returns a nil error if and only if it was delivered or is a row in failed_message:
//
//   - 2xx: delivered, at once or by one of the attempts in process (WithMaxRetryAttempts, WithRetryInterval).
//   - 3xx: followed, as long as method and body stay the same; otherwise invalid.
//   - 3xx not followed and 4xx: invalid. Saved at once, not retried by itself.
//   - 5xx, and no answer (status 0): retried; saved when no attempt is left.
//
// The Response tells which, and Response.Err why it failed. Its body is read and closed, up to WithMaxResponseBytes.
// The Response is nil if no attempt was made.
//
// The request's context bounds sending, not saving: if it ends before the first attempt, its error is returned and
// nothing was sent or saved; later, waiting ends at once, the message is saved and the error is nil. A wait that would
// outlast the context's deadline is not begun.
//
// Errors: ErrInvalidMessage and ErrBodyTooLarge, before anything is sent; ErrShutdown; the context's error;
// *NotSavedError, with the message in it, if the store did not take it within WithSaveTimeout; with SaveOnFailure(false),
// *SendError; ErrClaimLost if this process was held up for longer than WithClaimTTL while it sent a message that was a
// row already (WithDurability), and the row is gone since: delivered by another instance, or purged.
//
// req's body is read first, kept in memory (WithMaxBodyBytes) and closed. req is not modified and not used after the
// return.
func (c *Client) SendMessage(req *http.Request, opts ...SendOption) (*Response, error) {
	o, err := c.newOutgoing(req, opts)
	if err != nil {
		return nil, err
	}
	if req.Cancel != nil { //nolint:staticcheck // refused because it is deprecated
		return nil, invalid("Cancel", "use the request's context")
	}
	ctx := req.Context()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	defer c.end(o)
	r, err := c.deliver(ctx, o)
	if err != nil {
		return nil, err
	}
	return c.settle(ctx, o, r)
}

// begin notes that an attempt starts, to be canceled by cancel. It returns false if the client was shut down.
func (c *Client) begin(o *outgoing, cancel context.CancelFunc) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isStopped() {
		return false
	}
	o.cancel = cancel
	c.active[o] = struct{}{}
	return true
}

// end notes that o is delivered, or that what is to be saved of it is saved.
func (c *Client) end(o *outgoing) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.active[o]; !ok {
		return
	}
	delete(c.active, o)
	if c.isStopped() && len(c.active) == 0 {
		close(c.idle)
	}
}

func (c *Client) isStopped() bool {
	select {
	case <-c.stopped:
		return true
	default:
		return false
	}
}

func (c *Client) isAborted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.aborted
}

// Shutdown ends the client: new sends get ErrShutdown, messages that wait for their next attempt become rows at once,
// attempts in flight may finish. Before ctx's deadline, by as much as saving may take, they are canceled and saved too.
// It returns nil when everything has settled, else ctx's error. It can be called again, and the Monitor goes on working.
func (c *Client) Shutdown(ctx context.Context) error {
	c.mu.Lock()
	if !c.isStopped() {
		close(c.stopped)
		if len(c.active) == 0 {
			close(c.idle)
		}
	}
	c.mu.Unlock()

	grace, cancel := ctx, context.CancelFunc(func() {})
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		grace, cancel = context.WithDeadline(ctx, deadline.Add(-min(c.saveTimeout, left/2)))
	}
	defer cancel()
	select {
	case <-c.idle:
		return nil
	case <-grace.Done():
		c.abort()
	}
	select {
	case <-c.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// abort cancels the attempts in flight.
func (c *Client) abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aborted = true
	for o := range c.active {
		o.cancel()
	}
}

// Monitor returns a view of the table: of all its rows, whichever sender's.
func (c *Client) Monitor() *Monitor {
	return &Monitor{store: c.store}
}

func (o *outgoing) method() string {
	if o.Template.Method == "" {
		return http.MethodGet
	}
	return o.Template.Method
}

func (o *outgoing) url() *url.URL { return o.Template.URL }
