package hermes_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

// lockTable has everybody wait who wants to write, until release is called.
func lockTable(t *testing.T, db *gorm.DB) (release func()) {
	t.Helper()
	tx := db.Begin()
	require.NoError(t, tx.Error)
	release = sync.OnceFunc(func() { tx.Rollback() })
	t.Cleanup(release)
	if db.Name() == "postgres" {
		require.NoError(t, tx.Exec("LOCK TABLE failed_message IN EXCLUSIVE MODE").Error)
	}
	return release
}

// awaitCalls returns when a database has been called that often.
func awaitCalls(t testing.TB, plan *faults, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return plan.made() >= n }, 20*time.Second, time.Millisecond)
}

// together runs all at the same time, so that they most likely meet in one insert: the first waits for the table, the
// others for the first. It returns when all have.
func together(t *testing.T, db *gorm.DB, plan *faults, all ...func() error) []error {
	t.Helper()
	plan.plan(fault{})
	release := lockTable(t, db)
	errs := make([]error, len(all))
	var group sync.WaitGroup
	var started atomic.Int64
	for i, work := range all {
		group.Go(func() {
			started.Add(1)
			errs[i] = work()
		})
		if i == 0 {
			awaitCalls(t, plan, 1)
		}
	}
	require.Eventually(t, func() bool { return started.Load() == int64(len(all)) }, 20*time.Second, time.Millisecond)
	release()
	group.Wait()
	return errs
}

func saving(c *hermes.Client, msg *hermes.FailedMessage) func() error {
	return func() error { return c.Save(context.Background(), msg) }
}

func TestFailuresAtOnceShareInserts(t *testing.T) {
	eachFaulty(t, func(t *testing.T, healthy *hermes.Client, db, faulty *gorm.DB, plan *faults) {
		const n = 64
		c, err := hermes.New(faulty, hermes.WithMaxRetryAttempts(0))
		require.NoError(t, err)
		release := lockTable(t, db)
		var all sync.WaitGroup
		all.Add(n)
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			all.Done()
			all.Wait()
			w.WriteHeader(503)
		})
		plan.plan(fault{})
		outcomes := sendAll(t, c, r.URL, n)
		all.Wait()
		awaitCalls(t, plan, 1)
		release()
		for _, o := range outcomes() {
			require.NoError(t, o.err)
			row(t, healthy, o.resp.FailedMessageID)
		}
		assert.EqualValues(t, n, count(t, healthy, hermes.Filter{}))
		assert.Less(t, plan.made(), n/4, "statements")
	})
}

func TestOneFailureAloneIsOneStatement(t *testing.T) {
	eachFaulty(t, func(t *testing.T, healthy *hermes.Client, _, faulty *gorm.DB, plan *faults) {
		c, err := hermes.New(faulty, hermes.WithMaxRetryAttempts(0))
		require.NoError(t, err)
		plan.plan(fault{})
		_, err = c.SendMessage(post(t, newReceiver(t, statuses(503)).URL, "x"))
		require.NoError(t, err)
		assert.Equal(t, 1, plan.made())
		assert.EqualValues(t, 1, count(t, healthy, hermes.Filter{}))
	})
}

// refuseBad has the table take no body that says bad.
func refuseBad(t *testing.T, db *gorm.DB) {
	t.Helper()
	if db.Name() == "postgres" {
		exec(t, db, "ALTER TABLE failed_message ADD CONSTRAINT no_bad CHECK (body <> CAST('bad' AS bytea))")
		return
	}
	exec(t, db, "CREATE TRIGGER no_bad BEFORE INSERT ON failed_message WHEN NEW.body = CAST('bad' AS blob) "+
		"BEGIN SELECT RAISE(ABORT, 'no bad'); END")
}

func TestABadRowFailsNoOther(t *testing.T) {
	eachFaulty(t, func(t *testing.T, healthy *hermes.Client, db, faulty *gorm.DB, plan *faults) {
		c := impatient(t, faulty, hermes.WithSaveTimeout(2*time.Second))
		refuseBad(t, db)
		for _, at := range []int{0, 10} { // alone, among the others
			msgs, works := make([]*hermes.FailedMessage, 20), make([]func() error, 20)
			for i := range msgs {
				msgs[i] = sample()
				if i == at {
					msgs[i].Body = []byte("bad")
				}
				works[i] = saving(c, msgs[i])
			}
			for i, err := range together(t, db, plan, works...) {
				if i == at {
					assert.Error(t, err)
					continue
				}
				if assert.NoError(t, err) {
					row(t, healthy, msgs[i].ID)
				}
			}
			_, err := healthy.Monitor().Get(context.Background(), msgs[at].ID)
			assert.ErrorIs(t, err, hermes.ErrNotFound)
		}
	})
}

func TestACallersContextIsItsOwn(t *testing.T) {
	eachFaulty(t, func(t *testing.T, healthy *hermes.Client, db, faulty *gorm.DB, plan *faults) {
		c, err := hermes.New(faulty)
		require.NoError(t, err)
		release := lockTable(t, db)
		enqueue := func(ctx context.Context, body string) <-chan error {
			done := make(chan error, 1)
			go func() {
				_, err := c.Enqueue(ctx, nil, post(t, "http://receiver.example/", body), time.Time{})
				done <- err
			}()
			return done
		}
		ctx, cancel := context.WithCancel(context.Background())
		plan.plan(fault{})
		leader := enqueue(ctx, "leader")
		awaitCalls(t, plan, 1)
		others := []<-chan error{enqueue(context.Background(), "a"), enqueue(context.Background(), "b")}
		canceledCtx, cancelOne := context.WithCancel(context.Background())
		canceled := enqueue(canceledCtx, "canceled")
		cancelOne()
		require.ErrorIs(t, <-canceled, context.Canceled, "at once, while the others wait for the table")
		cancel()
		release()
		for _, other := range others {
			require.NoError(t, <-other)
		}
		if err := <-leader; err != nil {
			assert.ErrorIs(t, err, context.Canceled)
		}
		var bodies []string
		for m, err := range healthy.Monitor().All(context.Background(), hermes.Filter{}) {
			require.NoError(t, err)
			bodies = append(bodies, string(m.Body))
		}
		assert.ElementsMatch(t, []string{"leader", "a", "b"}, bodies)
	})
}

// TestNobodyIsLeftWaiting: contexts end at any moment, also of those whose turn it is to write.
func TestNobodyIsLeftWaiting(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		var group sync.WaitGroup
		var done atomic.Int64
		for range 16 {
			group.Go(func() {
				for range 20 {
					ctx, cancel := context.WithTimeout(context.Background(), rand.N(30*time.Millisecond))
					m := sample()
					err := c.Save(ctx, m)
					cancel()
					if err == nil {
						done.Add(1)
						_, err := c.Monitor().Get(context.Background(), m.ID)
						assert.NoError(t, err)
					} else {
						assert.ErrorIs(t, err, context.DeadlineExceeded)
					}
				}
			})
		}
		group.Wait()
		t.Logf("%d of 320 saved in time", done.Load())
		assert.GreaterOrEqual(t, count(t, c, hermes.Filter{}), done.Load())
		require.NoError(t, c.Save(context.Background(), sample()))
	})
}

func TestOneIDManyTimesAtOnce(t *testing.T) {
	eachFaulty(t, func(t *testing.T, healthy *hermes.Client, db, faulty *gorm.DB, plan *faults) {
		c, err := hermes.New(faulty)
		require.NoError(t, err)
		m := sample()
		works := make([]func() error, 16)
		for i := range works {
			works[i] = saving(c, m)
		}
		for _, err := range together(t, db, plan, works...) {
			assert.NoError(t, err)
		}
		assert.Equal(t, m.ID, only(t, healthy).ID)
	})
}

// TestRowsOfAllKindsInOneInsert: what one of them has and another has not does not mix them up.
func TestRowsOfAllKindsInOneInsert(t *testing.T) {
	eachFaulty(t, func(t *testing.T, healthy *hermes.Client, db, faulty *gorm.DB, plan *faults) {
		c, err := hermes.New(faulty)
		require.NoError(t, err)
		parts := []func(*hermes.FailedMessage){
			func(m *hermes.FailedMessage) { m.Body = nil },
			func(m *hermes.FailedMessage) {
				m.NotAfter = ptr(time.Now().UTC().Add(time.Hour).Truncate(time.Millisecond))
			},
			func(m *hermes.FailedMessage) { m.Schedule = []time.Duration{time.Second, time.Hour} },
			func(m *hermes.FailedMessage) { m.HostOverride = "other.example" },
			func(m *hermes.FailedMessage) { m.NextAttemptAt, m.Retryable = nil, false },
		}
		var want []*hermes.FailedMessage
		var works []func() error
		for bits := range 1 << len(parts) {
			m := sample()
			for i, part := range parts {
				if bits&(1<<i) != 0 {
					part(m)
				}
			}
			want = append(want, m)
			works = append(works, saving(c, m))
		}
		for i, err := range together(t, db, plan, works...) {
			require.NoError(t, err)
			got := row(t, healthy, want[i].ID)
			want[i].CreatedAt, want[i].UpdatedAt = got.CreatedAt, got.UpdatedAt
			assert.Equal(t, string(want[i].Body), string(got.Body))
			got.Body = want[i].Body
			assert.WithinDuration(t, time.Now(), got.CreatedAt, 20*time.Second)
			assert.Equal(t, want[i], got)
		}
		assert.Less(t, plan.made(), len(works)/4)
	})
}

// TestFault21_TheNthCallFailsWhileManySend: whatever call of the store fails, before or after it took effect, every message is
// delivered, or a row, or in a *NotSavedError.
func TestFault21_TheNthCallFailsWhileManySend(t *testing.T) {
	for mode, name := range []string{"after retries", "before retries", "before sending"} {
		for kind, planned := range map[string]fault{
			"before":           {},
			"after":            {applied: true},
			"from then on":     {onwards: true},
			"only the answers": {onwards: true, applied: true},
		} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				eachFaulty(t, func(t *testing.T, healthy *hermes.Client, db, faulty *gorm.DB, plan *faults) {
					next, patience := planned, 5*time.Second
					if next.onwards {
						patience = 100 * time.Millisecond
					}
					r := &halfOf{}
					c := impatient(t, faulty, hermes.WithDurability(hermes.Durability(mode)), hermes.WithMaxRetryAttempts(1),
						hermes.WithSaveTimeout(patience), hermes.WithScheme("half", r))
					for next.at = 1; ; next.at++ {
						plan.plan(next)
						sendMany(t, c, healthy, r, next.onwards)
						if t.Failed() || plan.made() < next.at || next.onwards && next.at > 4 {
							return
						}
						exec(t, db, "DELETE FROM failed_message")
					}
				})
			})
		}
	}
}

// halfOf is a receiver without a network: it takes every second message, at the second attempt.
type halfOf struct {
	mu        sync.Mutex
	tried     map[string]int
	delivered map[string]bool
}

func (h *halfOf) RoundTrip(req *http.Request) (*http.Response, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tried[req.URL.Path]++
	i, err := strconv.Atoi(strings.TrimPrefix(req.URL.Path, "/"))
	if err != nil || i%2 == 1 || h.tried[req.URL.Path] == 1 {
		return answerOf(503), err
	}
	h.delivered[req.URL.Path] = true
	return answerOf(200), nil
}

func (h *halfOf) has(path string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.delivered[path]
}

// sendMany sends messages at once, after a restart of the receiver.
func sendMany(t *testing.T, c, healthy *hermes.Client, r *halfOf, isDown bool) {
	t.Helper()
	const n = 8
	r.tried, r.delivered = map[string]int{}, map[string]bool{}
	var group sync.WaitGroup
	for i := range n {
		path := fmt.Sprintf("/%d", i)
		req := post(t, "half://receiver"+path, "body of "+path)
		group.Go(func() {
			resp, err := c.SendMessage(req)
			arrived := r.has(path)
			var lost *hermes.NotSavedError
			switch {
			case errors.As(err, &lost):
				assert.True(t, isDown, "the store was down for a moment only: %v", err)
				assert.False(t, arrived)
				assert.Equal(t, "body of "+path, string(lost.Message.Body))
			case !assert.NoError(t, err):
			case arrived:
				assert.True(t, resp.Succeeded())
			default:
				m, err := healthy.Monitor().Get(context.Background(), resp.FailedMessageID)
				if assert.NoError(t, err) {
					assert.Equal(t, "body of "+path, string(m.Body))
				}
			}
		})
	}
	group.Wait()
}

// TestEnqueuedAtOnce: rows that are due at a time, by a schedule and now meet in one insert.
func TestEnqueuedAtOnce(t *testing.T) {
	eachDSN(t, func(t *testing.T, dsn string) {
		db := testdb.Open(t, dsn)
		healthy := newClient(t, db)
		faulty, plan := openFaulty(t, db, dsn)
		c, err := hermes.New(faulty)
		require.NoError(t, err)
		at := time.Now().UTC().Add(3 * time.Hour).Truncate(time.Millisecond)
		ids := make([]string, 30)
		works := make([]func() error, len(ids))
		for i := range works {
			when, opts := time.Time{}, []hermes.SendOption(nil)
			switch i % 3 {
			case 1:
				when = at
			case 2:
				opts = append(opts, hermes.Schedule(time.Hour))
			}
			works[i] = func() error {
				m, err := c.Enqueue(context.Background(), nil, post(t, "http://receiver.example/", "x"), when, opts...)
				if err == nil {
					ids[i] = m.ID
				}
				return err
			}
		}
		for i, err := range together(t, db, plan, works...) {
			require.NoError(t, err)
			m := row(t, healthy, ids[i])
			switch i % 3 {
			case 0:
				assert.Equal(t, m.CreatedAt, *m.NextAttemptAt)
			case 1:
				assert.Equal(t, at, *m.NextAttemptAt)
			case 2:
				assert.WithinDuration(t, m.CreatedAt.Add(time.Hour), *m.NextAttemptAt, 2*time.Millisecond)
			}
		}
	})
}
