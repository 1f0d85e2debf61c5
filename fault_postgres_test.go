package hermes_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
	"github.com/hermeshttp/hermes/internal/testpgbouncer"
)

// drain makes passes over what is due until all rows have been delivered. Errors are allowed; a claim that nobody knows of
// any more runs out.
func drain(t *testing.T, c, healthy *hermes.Client, db *gorm.DB) (passes, errs int) {
	t.Helper()
	for start := time.Now(); ; soon(t, start) {
		passes++
		if _, err := c.RetryAll(context.Background(), hermes.RetryOptions{BatchSize: 50}); err != nil {
			errs++
		}
		if t.Failed() || count(t, healthy, hermes.Filter{}) == 0 {
			return passes, errs
		}
		exec(t, db, "UPDATE failed_message SET claimed_until = ? WHERE claimed_until IS NOT NULL", ago(time.Second))
	}
}

// sendMeanwhile sends messages that fail, until stop is called, which asserts that none got lost.
func sendMeanwhile(t *testing.T, c, healthy *hermes.Client) (stop func()) {
	t.Helper()
	r := newReceiver(t, statuses(400))
	var group sync.WaitGroup
	var saved, notSaved atomic.Int64
	done := make(chan struct{})
	for range 4 {
		group.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				resp, err := c.SendMessage(post(t, r.URL, "x"))
				var lost *hermes.NotSavedError
				if errors.As(err, &lost) {
					notSaved.Add(1)
				} else if assert.NoError(t, err) {
					saved.Add(1)
					assert.NotEmpty(t, resp.FailedMessageID)
				}
			}
		})
	}
	return func() {
		close(done)
		group.Wait()
		mine := hermes.Filter{Host: r.Listener.Addr().String()}
		n := count(t, healthy, mine)
		t.Logf("%d saved, %d not", saved.Load(), notSaved.Load())
		assert.GreaterOrEqual(t, n, saved.Load())
		assert.LessOrEqual(t, n, saved.Load()+notSaved.Load())
		_, err := healthy.Purge(context.Background(), mine)
		assert.NoError(t, err)
	}
}

// seenTwice returns how many messages a receiver got more than once; it must have got all.
func seenTwice(t *testing.T, r *receiver, want int) (twice int) {
	t.Helper()
	all := paths(r)
	assert.Len(t, all, want, "each at least once")
	for _, n := range all {
		if n > 1 {
			twice++
		}
	}
	return twice
}

func saveMany(t *testing.T, c *hermes.Client, r *receiver, n int) {
	t.Helper()
	var group sync.WaitGroup
	for i := range n {
		m := sample(to(fmt.Sprintf("%s/%d", r.URL, i)))
		group.Go(func() { assert.NoError(t, c.Save(context.Background(), m)) })
	}
	group.Wait()
}

func TestFault23_BackendsAreTerminated(t *testing.T) {
	t.Parallel()
	dsn := testdb.PostgresDSN(t)
	db := testdb.Open(t, dsn)
	victim := testdb.Open(t, withParam(dsn, "application_name=victim"))
	healthy, c := newClient(t, db), newClient(t, victim, hermes.WithMaxRetryAttempts(0))
	const rows = 400
	r := newReceiver(t, statuses(200))
	saveMany(t, healthy, r, rows)

	// Every few deliveries, whatever they are doing.
	var terminated atomic.Int64
	r.answer = func(n int, _ http.ResponseWriter, _ *http.Request) {
		if n%20 == 0 {
			result := db.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'")
			assert.NoError(t, result.Error)
			terminated.Add(result.RowsAffected)
		}
	}
	stop := sendMeanwhile(t, c, healthy)
	due := hermes.ValidMessages()
	for start := time.Now(); count(t, healthy, due) > 0 && !t.Failed(); soon(t, start) {
		_, err := c.RetryAll(context.Background(), hermes.RetryOptions{BatchSize: 50})
		t.Log("a pass ended: ", err)
		exec(t, db, "UPDATE failed_message SET claimed_until = ? WHERE claimed_until IS NOT NULL", ago(time.Second))
	}
	stop()
	t.Logf("%d connections ended; %d of %d were sent twice", terminated.Load(), seenTwice(t, r, rows), rows)
	assert.Positive(t, terminated.Load())
	assert.Zero(t, count(t, healthy, hermes.Filter{}))
}

// outage is a PostgreSQL as a client sees it that is restarted: its connections break, and none are accepted for a while.
type outage struct {
	mu     sync.Mutex
	isDown bool
	conns  []net.Conn
}

func (o *outage) set(down bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.isDown = down
	for _, conn := range o.conns {
		conn.Close()
	}
	o.conns = nil
}

func (o *outage) dial(ctx context.Context, network, address string) (net.Conn, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.isDown {
		return nil, errors.New("the database system is starting up")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err == nil {
		o.conns = append(o.conns, conn)
	}
	return conn, err
}

func (o *outage) open(t *testing.T, dsn string) *gorm.DB {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	config.DialFunc = o.dial
	pool := stdlib.OpenDB(*config)
	t.Cleanup(func() { pool.Close() })
	db, err := gorm.Open(postgres.New(postgres.Config{Conn: pool}), &gorm.Config{Logger: logger.Discard})
	require.NoError(t, err)
	return db
}

func TestFault23_TheDatabaseIsRestarted(t *testing.T) {
	for name, test := range map[string]struct {
		patience time.Duration
		isError  bool
	}{
		"the pass goes on":           {patience: 20 * time.Second},
		"or ends with a clear error": {patience: 100 * time.Millisecond, isError: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := testdb.PostgresDSN(t)
			db := testdb.Open(t, dsn)
			healthy := newClient(t, db)
			server := &outage{}
			c := newClient(t, server.open(t, dsn), hermes.WithSaveTimeout(test.patience), hermes.WithMaxRetryAttempts(0))
			const rows = 200
			r := newReceiver(t, statuses(200))
			saveMany(t, healthy, r, rows)
			down := make(chan struct{})
			r.answer = func(n int, _ http.ResponseWriter, _ *http.Request) {
				if n == rows/2 {
					server.set(true)
					close(down)
				}
			}
			lost := newReceiver(t, statuses(503))
			sent := make(chan error, 1)
			go func() {
				<-down
				_, err := c.SendMessage(post(t, lost.URL, "x"))
				if !test.isError {
					assert.NoError(t, err)
				}
				sent <- err
			}()
			done := make(chan error, 1)
			go func() {
				_, err := c.RetryAll(context.Background(), hermes.RetryOptions{BatchSize: 50})
				done <- err
			}()
			<-down
			if test.isError {
				err := <-done
				require.ErrorContains(t, err, "starting up")
				assert.ErrorContains(t, err, "hermes: ")
				assert.ErrorIs(t, <-sent, hermes.ErrNotSaved)
				server.set(false)
			} else {
				require.Eventually(t, func() bool { return len(lost.received()) > 0 }, 20*time.Second, time.Millisecond)
				server.set(false)
				require.NoError(t, <-done)
				require.NoError(t, <-sent)
				_, err := healthy.Purge(context.Background(), hermes.Filter{Host: lost.Listener.Addr().String()})
				require.NoError(t, err)
				unknown := count(t, healthy, hermes.Filter{States: []hermes.State{hermes.StateClaimed}})
				t.Logf("%d rows were claimed when the connection broke", unknown)
				assert.Equal(t, unknown, count(t, healthy, hermes.Filter{}), "all others are delivered in the one pass")
			}
			drain(t, c, healthy, db)
			t.Logf("%d of %d were sent twice", seenTwice(t, r, rows), rows)
		})
	}
}

// wholeFlow is all that a service does with its table, with messages of its own.
func wholeFlow(t *testing.T, db *gorm.DB, sender string) {
	t.Helper()
	ctx := context.Background()
	c := newClient(t, db, hermes.WithMaxRetryAttempts(1), hermes.WithSender(sender))
	mine := hermes.Filter{Senders: []string{sender}}
	require.NoError(t, c.Ready(ctx))
	r := newReceiver(t, byPath)
	labels := hermes.Metadata(map[string]string{"a'b": `c\"d`})
	for _, status := range []int{503, 404} {
		resp, err := c.SendMessage(post(t, fmt.Sprintf("%s/%d/", r.URL, status), "\x00\xff'\\"), labels)
		require.NoError(t, err)
		m := row(t, c, resp.FailedMessageID)
		assert.Equal(t, status, m.StatusCode)
		assert.Equal(t, "\x00\xff'\\", string(m.Body))
	}
	filter := hermes.Filter{Senders: mine.Senders, Metadata: map[string]string{"a'b": `c\"d`}, StatusCodes: []int{503}}
	msgs, err := c.GatherFailedMessagesForRetry(ctx, hermes.GatherOptions{Filter: filter})
	require.NoError(t, err)
	require.Len(t, msgs, 1)
	resp, err := c.RetryMessage(ctx, msgs[0])
	require.NoError(t, err)
	assert.Equal(t, 503, resp.StatusCode)
	assert.Equal(t, hermes.StateWaiting, row(t, c, msgs[0].ID).State())

	commit := func(tx *gorm.DB) error {
		_, err := c.Enqueue(ctx, tx, post(t, r.URL+"/200/outbox", "x"), time.Time{})
		return err
	}
	require.NoError(t, insistently(func() error { return db.Transaction(commit) }))
	rollback := errors.New("changed my mind")
	require.ErrorIs(t, db.Transaction(func(tx *gorm.DB) error { return errors.Join(commit(tx), rollback) }), rollback)
	for i := range 20 {
		_, err := c.Enqueue(ctx, nil, post(t, fmt.Sprintf("%s/200/%d", r.URL, i), "x"), time.Time{})
		require.NoError(t, err)
	}
	assert.EqualValues(t, 23, count(t, c, mine))
	page, err := c.Monitor().List(ctx, mine, hermes.ListOptions{Limit: 5, OrderBy: hermes.OrderByNextAttempt})
	require.NoError(t, err)
	assert.Len(t, page.Messages, 5)
	page, err = c.Monitor().List(ctx, mine, hermes.ListOptions{After: page.Next})
	require.NoError(t, err)
	assert.Len(t, page.Messages, 18)

	assert.Equal(t, hermes.RetrySummary{Delivered: 21}, retryAll(t, c, hermes.RetryOptions{BatchSize: 5}))
	n, err := c.Reschedule(ctx, mine, time.Time{})
	require.NoError(t, err)
	assert.EqualValues(t, 2, n)
	assert.Equal(t, hermes.RetrySummary{Failed: 1, Invalid: 1}, retryAll(t, c, hermes.RetryOptions{}))
	n, err = c.Purge(ctx, mine)
	require.NoError(t, err)
	assert.EqualValues(t, 2, n)
	assert.Len(t, r.received(), 2+1+1+21+2) // the first and the second sent, the first retried, a pass, another
}

// insistently does what a user's transaction does that is told to try again.
func insistently(work func() error) (err error) {
	for range 20 {
		if err = work(); err == nil {
			return nil
		}
	}
	return err
}

func TestFault35_PgBouncer(t *testing.T) {
	modes := []string{"simple_protocol", "exec", "cache_describe"}
	if testpgbouncer.Start(t, testdb.PostgresDSN(t)).KnowsPreparedStatements { // an older one cannot, in transaction mode
		modes = append(modes, "cache_statement")
	}
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			pooler := testpgbouncer.Start(t, testdb.PostgresDSN(t))
			var group sync.WaitGroup
			for i := range 3 {
				db := testdb.Open(t, withParam(pooler.DSN, "default_query_exec_mode="+mode))
				group.Go(func() { wholeFlow(t, db, fmt.Sprintf("sender %d", i)) })
			}
			group.Wait()
		})
	}
}

// TestFault35_SerializationFailures: where the database lets no two transactions see each other, and so fails some of them.
func TestFault35_SerializationFailures(t *testing.T) {
	for _, level := range []string{"repeatable read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			dsn := testdb.PostgresDSN(t)
			healthy := newClient(t, testdb.Open(t, dsn))
			strict := func() *gorm.DB {
				config, err := pgx.ParseConfig(dsn)
				require.NoError(t, err)
				config.RuntimeParams["default_transaction_isolation"] = level
				pool := stdlib.OpenDB(*config)
				t.Cleanup(func() { pool.Close() })
				pool.SetMaxOpenConns(10)
				db, err := gorm.Open(postgres.New(postgres.Config{Conn: pool}), &gorm.Config{Logger: logger.Discard})
				require.NoError(t, err)
				return db
			}
			const rows = 300
			r := newReceiver(t, statuses(200))
			saveMany(t, healthy, r, rows)
			var group sync.WaitGroup
			var delivered atomic.Int64
			for i := range 2 {
				db := strict()
				c := newClient(t, db, hermes.WithMaxRetryAttempts(0), hermes.WithInstanceID(fmt.Sprint(i)))
				stop := sendMeanwhile(t, c, healthy)
				group.Go(func() {
					sum, err := c.RetryAll(context.Background(), hermes.RetryOptions{BatchSize: 20})
					assert.NoError(t, err)
					delivered.Add(sum.Delivered)
				})
				group.Go(func() { // and another that gathers
					for range 40 {
						msgs, err := c.GatherFailedMessagesForRetry(context.Background(), hermes.GatherOptions{Limit: 2})
						if !assert.NoError(t, err) {
							return
						}
						for _, m := range msgs {
							resp, err := c.RetryMessage(context.Background(), m)
							if assert.NoError(t, err) && assert.True(t, resp.Succeeded()) {
								delivered.Add(1)
							}
						}
					}
				})
				defer stop()
			}
			group.Wait()
			assert.EqualValues(t, rows, delivered.Load())
			assert.Zero(t, seenTwice(t, r, rows))
			wholeFlow(t, strict(), "another")
		})
	}
}

// TestFault35_Deadlocks: somebody locks the same rows the other way round, again and again.
func TestFault35_Deadlocks(t *testing.T) {
	t.Parallel()
	db := testdb.Postgres(t)
	exec(t, db, "DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET deadlock_timeout = ''10ms'''; END $$")
	c := newClient(t, db)
	const rows = 200
	r := newReceiver(t, statuses(200))
	saveMany(t, c, r, rows)
	done := make(chan struct{})
	var deadlocks int
	var group sync.WaitGroup
	group.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			err := db.Transaction(func(tx *gorm.DB) error {
				var ids []string
				err := tx.Raw("SELECT id FROM failed_message WHERE claimed_until IS NOT NULL ORDER BY id DESC LIMIT 20").Scan(&ids).Error
				for _, id := range ids {
					err = errors.Join(err, tx.Exec("SELECT FROM failed_message WHERE id = ? FOR UPDATE", id).Error)
				}
				return err
			})
			if err != nil {
				deadlocks++
			}
		}
	})
	sum := retryAll(t, c, hermes.RetryOptions{BatchSize: 50})
	close(done)
	group.Wait()
	t.Logf("%d deadlocks on the other side", deadlocks)
	assert.EqualValues(t, rows, sum.Delivered)
	assert.Zero(t, seenTwice(t, r, rows))
}
