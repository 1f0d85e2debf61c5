package hermes_test

import (
	"context"
	"fmt"
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

// byPath answers what the path asks for: /503/… and /400/… with that status, everything else with 200.
func byPath(_ int, w http.ResponseWriter, req *http.Request) {
	status, _, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
	if code, err := strconv.Atoi(status); err == nil {
		w.WriteHeader(code)
	}
}

func paths(r *receiver) map[string]int {
	all := map[string]int{}
	for _, got := range r.received() {
		all[got.URL]++
	}
	return all
}

// TestFault21_TheNthCallFailsDuringAPass: whatever call of the store fails, before or after it took effect, each row is
// delivered or still there, and the pass ends.
func TestFault21_TheNthCallFailsDuringAPass(t *testing.T) {
	for kind, planned := range map[string]fault{
		"before":           {},
		"after":            {applied: true},
		"from then on":     {onwards: true},
		"only the answers": {onwards: true, applied: true},
	} {
		t.Run(kind, func(t *testing.T) {
			eachFaulty(t, func(t *testing.T, healthy *hermes.Client, db, faulty *gorm.DB, plan *faults) {
				next, patience := planned, 5*time.Second
				if next.onwards {
					patience = 100 * time.Millisecond
				}
				c := impatient(t, faulty, hermes.WithSaveTimeout(patience))
				for next.at = 1; ; next.at++ {
					passWithAFault(t, c, healthy, plan, next)
					if t.Failed() || plan.made() < next.at {
						assert.Greater(t, next.at, 6) // clock, twice gathered, deleted, recorded, nothing gathered, no suspects
						return
					}
					exec(t, db, "DELETE FROM failed_message")
				}
			})
		})
	}
}

func passWithAFault(t *testing.T, c, healthy *hermes.Client, plan *faults, next fault) {
	t.Helper()
	r := newReceiver(t, byPath)
	all := map[string]string{}
	for i := range 9 {
		path := fmt.Sprintf("/%d/%d", []int{200, 200, 503, 400}[i%4], i)
		all[path] = saved(t, healthy, to(r.URL+path), dueSince(time.Hour+time.Duration(i)*time.Second)).ID
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	plan.plan(next)
	sum, err := c.RetryAll(ctx, hermes.RetryOptions{BatchSize: 4})
	if next.at > 1 && !next.onwards {
		assert.NoError(t, err, "all but the look at the clock is tried again")
	}
	require.NoError(t, ctx.Err(), "it ended by itself")
	sent, gone := paths(r), int64(0)
	for path, id := range all {
		_, err := healthy.Monitor().Get(ctx, id)
		if err != nil {
			require.ErrorIs(t, err, hermes.ErrNotFound)
			assert.True(t, strings.HasPrefix(path, "/200/") && sent[path] == 1, path)
			gone++
		}
		assert.LessOrEqual(t, sent[path], 1, "once in a pass")
	}
	assert.LessOrEqual(t, sum.Delivered, gone)
	assert.LessOrEqual(t, sum.Delivered+sum.Failed+sum.Invalid+sum.Released, int64(len(all)))
	if err == nil {
		assert.Equal(t, gone, sum.Delivered)
		for path, id := range all {
			if m, err := healthy.Monitor().Get(ctx, id); err == nil && sent[path] == 1 {
				assert.Equal(t, 2, m.Attempts, "recorded: %s", path)
				assert.Empty(t, m.ClaimedBy)
			}
		}
	}
}

func TestRetryAllWhoseClaimsAreLost(t *testing.T) {
	each(t, func(t *testing.T, _ *hermes.Client, db *gorm.DB) {
		ctx := context.Background()
		var mu sync.Mutex
		lost := map[string]int{}
		c := newClient(t, db, hermes.WithRequestTimeout(30*time.Second), hermes.WithHooks(hermes.Hooks{
			ClaimLost: func(_ context.Context, info hermes.ClaimLostInfo) {
				mu.Lock()
				defer mu.Unlock()
				lost[info.MessageID]++
			},
		}))
		other := newClient(t, db, hermes.WithInstanceID("another"))
		var taken []*hermes.FailedMessage
		takeAll := sync.OnceFunc(func() {
			exec(t, db, "UPDATE failed_message SET claimed_until = ?", ago(time.Second))
			taken = gather(t, other, hermes.GatherOptions{})
		})
		r := newReceiver(t, func(n int, w http.ResponseWriter, req *http.Request) {
			takeAll() // all wait for the first
			byPath(n, w, req)
		})
		for i := range 9 {
			saved(t, c, to(fmt.Sprintf("%s/%d/%d", r.URL, []int{200, 503, 400}[i%3], i)))
		}
		sum := retryAll(t, c, hermes.RetryOptions{})
		assert.Equal(t, hermes.RetrySummary{Delivered: 3}, sum)
		require.Len(t, taken, 9)
		assert.EqualValues(t, 6, count(t, c, hermes.Filter{}), "what is delivered is gone, and stays gone")
		for _, m := range taken {
			if strings.Contains(m.URL, "/200/") {
				_, err := other.RetryMessage(ctx, m)
				assert.ErrorIs(t, err, hermes.ErrNotFound)
				continue
			}
			assert.Equal(t, 1, lost[m.ID])
			assert.Equal(t, lookedAt(m), row(t, c, m.ID), "it is the other's")
		}
		assert.Len(t, lost, 6)
	})
}

// TestRetryAllCountsWhatItGaveBack, and not what was another's by then.
func TestRetryAllCountsWhatItGaveBack(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		ctx, cancel := context.WithCancel(context.Background())
		other := newClient(t, db, hermes.WithInstanceID("another"))
		var taken []*hermes.FailedMessage
		r := newReceiver(t, func(_ int, _ http.ResponseWriter, req *http.Request) {
			exec(t, db, "UPDATE failed_message SET claimed_until = ?", ago(time.Second))
			taken = gather(t, other, hermes.GatherOptions{Limit: 2})
			cancel()
			<-req.Context().Done()
		})
		for i := range 3 { // no more than are kept of a slow host
			saved(t, c, to(r.URL), dueSince(time.Hour-time.Duration(i)*time.Second))
		}
		sum, err := c.RetryAll(ctx, hermes.RetryOptions{PerHost: 1})
		require.ErrorIs(t, err, context.Canceled)
		sum.Elapsed = 0
		assert.Equal(t, hermes.RetrySummary{Released: 1}, sum, "two are another's, the first among them, which was being sent")
		for _, m := range taken {
			assert.Equal(t, lookedAt(m), row(t, c, m.ID))
		}
		assert.EqualValues(t, 1, count(t, c, hermes.Filter{States: []hermes.State{hermes.StateDue}}))
	}, hermes.WithRequestTimeout(30*time.Second))
}

func TestRetryAllOfRowsThatArePurgedMeanwhile(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		purgeAll := sync.OnceFunc(func() { exec(t, db, "DELETE FROM failed_message") })
		r := newReceiver(t, func(n int, w http.ResponseWriter, req *http.Request) {
			purgeAll()
			byPath(n, w, req)
		})
		for i := range 4 {
			saved(t, c, to(fmt.Sprintf("%s/%d/%d", r.URL, []int{503, 400}[i%2], i)))
		}
		assert.Zero(t, retryAll(t, c, hermes.RetryOptions{}))
		assert.Zero(t, count(t, c, hermes.Filter{}), "nothing brings them back")
	}, hermes.WithRequestTimeout(30*time.Second))
}

func TestFault28_RetryAllPassesByWhatCannotBeRead(t *testing.T) {
	each(t, func(t *testing.T, _ *hermes.Client, db *gorm.DB) {
		var mu sync.Mutex
		var reported []string
		c := newClient(t, db, hermes.WithHooks(hermes.Hooks{Unreadable: func(_ context.Context, info hermes.UnreadableInfo) {
			mu.Lock()
			defer mu.Unlock()
			reported = append(reported, info.MessageID)
		}}))
		r := newReceiver(t, statuses(200))
		var bad []string
		for i := range 30 {
			m := saved(t, c, to(r.URL), dueSince(time.Hour-time.Duration(i)*time.Minute))
			switch i % 10 {
			case 0: // also the whole first batch
				set(t, db, m.ID, "header", []byte("\x00\xff garbage"))
			case 1:
				set(t, db, m.ID, "method", "GE T")
			case 2:
				set(t, db, m.ID, "attempt_log", "{")
			default:
				continue
			}
			bad = append(bad, m.ID)
		}
		sum := retryAll(t, c, hermes.RetryOptions{BatchSize: 3})
		assert.Equal(t, hermes.RetrySummary{Delivered: 21}, sum)
		assert.ElementsMatch(t, bad, reported)
		for _, id := range bad {
			m := row(t, c, id)
			assert.Equal(t, hermes.StateWaiting, m.State())
			assert.True(t, m.Retryable)
			assert.Empty(t, m.ClaimedBy)
		}
	})
}

// TestRetryAllRenewsItsClaims takes the time until a renewal: 9 rows, a second apart.
func TestRetryAllRenewsItsClaims(t *testing.T) {
	each(t, func(t *testing.T, _ *hermes.Client, db *gorm.DB) {
		var lost atomic.Int32
		c := newClient(t, db, hermes.WithClaimTTL(15*time.Second),
			hermes.WithHooks(hermes.Hooks{ClaimLost: func(context.Context, hermes.ClaimLostInfo) { lost.Add(1) }}))
		other := newClient(t, db, hermes.WithInstanceID("another"))
		r := newReceiver(t, statuses(200))
		for i := range 8 {
			saved(t, c, to(fmt.Sprintf("%s/%d", r.URL, i)), dueSince(time.Hour-time.Duration(i)*time.Second))
		}
		taken := saved(t, c, to(r.URL+"/taken"), dueSince(time.Minute))
		last := saved(t, c, to(r.URL+"/last"), dueSince(30*time.Second))
		var until []time.Time
		sum := retryAll(t, c, hermes.RetryOptions{RatePerHost: 1, Progress: func(s hermes.RetrySummary) {
			if len(until) == 0 {
				expire(t, db, taken.ID)
				assert.Len(t, gather(t, other, hermes.GatherOptions{}), 1)
			}
			if m, err := c.Monitor().Get(context.Background(), last.ID); err == nil {
				until = append(until, *m.ClaimedUntil)
			}
		}})
		assert.Equal(t, hermes.RetrySummary{Delivered: 9}, sum)
		assert.Zero(t, paths(r)["/taken"], "it is another's")
		assert.EqualValues(t, 1, lost.Load(), "lost once")
		assert.Equal(t, taken.ID, only(t, c).ID)
		require.NotEmpty(t, until)
		assert.Greater(t, until[len(until)-1].Sub(until[0]), 4*time.Second, "renewed")
	})
}

// TestRetryAllLosesNoClaimOfWhatItDelivers while it renews claims. Another session holds up the renewal.
func TestRetryAllLosesNoClaimOfWhatItDelivers(t *testing.T) {
	t.Parallel()
	db := testdb.Postgres(t)
	c := newClient(t, db, hermes.WithClaimTTL(15*time.Second),
		hermes.WithHooks(hermes.Hooks{ClaimLost: func(_ context.Context, info hermes.ClaimLostInfo) {
			t.Errorf("nobody took %s", info.MessageID)
		}}))
	r := newReceiver(t, statuses(200))
	last := saved(t, c, to(r.URL+"/last"), dueSince(time.Second))
	for i := range 9 {
		saved(t, c, to(fmt.Sprintf("%s/%d", r.URL, i)), dueSince(time.Hour))
	}
	done := make(chan hermes.RetrySummary, 1)
	go func() {
		sum, err := c.RetryAll(context.Background(), hermes.RetryOptions{RatePerHost: 1})
		assert.NoError(t, err)
		done <- sum
	}()
	require.Eventually(t, func() bool { return len(r.received()) > 0 }, 20*time.Second, time.Millisecond)
	tx := db.Begin()
	require.NoError(t, tx.Error)
	defer tx.Rollback()
	require.NoError(t, tx.Exec("SELECT FROM failed_message WHERE id = ? FOR UPDATE", last.ID).Error)
	waits := func() bool {
		var n int
		err := db.Raw("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&n).Error
		return err == nil && n > 0
	}
	require.Eventually(t, waits, 20*time.Second, 10*time.Millisecond)
	// Until a row is deleted meanwhile, unless the renewal has locked that too.
	before := count(t, c, hermes.Filter{})
	for end := time.Now().Add(2500 * time.Millisecond); time.Now().Before(end) && count(t, c, hermes.Filter{}) == before; {
	}
	tx.Rollback()
	assert.EqualValues(t, 10, (<-done).Delivered)
}

func TestRetryAllClaimsFewLargeRows(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		const rows = 120
		var most atomic.Int64
		r := newReceiver(t, func(n int, _ http.ResponseWriter, _ *http.Request) {
			if n%8 == 1 {
				raise(&most, count(t, c, hermes.Filter{States: []hermes.State{hermes.StateClaimed}}))
			}
		})
		first := saved(t, c, to(r.URL), func(m *hermes.FailedMessage) { m.Body = make([]byte, 1<<20) })
		multiply(t, db, first.ID, rows-1)
		assert.EqualValues(t, rows, retryAll(t, c, hermes.RetryOptions{}).Delivered)
		t.Logf("at most %d claimed", most.Load())
		assert.LessOrEqual(t, most.Load(), int64(90), "four batches of 16 MiB, and what is on its way")
	}, hermes.WithRequestTimeout(30*time.Second), hermes.WithSaveTimeout(20*time.Second))
}

func raise(most *atomic.Int64, n int64) {
	for have := most.Load(); n > have && !most.CompareAndSwap(have, n); have = most.Load() {
	}
}

// TestFault29_ADeadHostAmongOthers: several are dead, of different kinds, and have the oldest rows; the others still get
// through, and those are not hammered.
func TestFault29_ADeadHostAmongOthers(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		const perHost = 300
		refusing := newReceiver(t, statuses(200))
		refusing.Close()
		silent := newReceiver(t, func(_ int, _ http.ResponseWriter, req *http.Request) { <-req.Context().Done() })
		fine := newReceiver(t, statuses(200))
		for i, r := range []*receiver{refusing, silent, fine} {
			m := saved(t, c, to(r.URL), dueSince(time.Duration(5-i)*time.Hour))
			multiply(t, db, m.ID, perHost-1)
			exec(t, db, "UPDATE failed_message SET id = id || ? WHERE id LIKE 'copy-%' AND id NOT LIKE '%/%'", fmt.Sprintf("/%d", i))
		}
		sum := retryAll(t, c, hermes.RetryOptions{BatchSize: 100, PerHost: 5})
		assert.EqualValues(t, perHost, sum.Delivered)
		assert.LessOrEqual(t, sum.Failed, int64(2*(5+5)))
		assert.LessOrEqual(t, len(silent.received()), 5+5)
		assert.EqualValues(t, 2*perHost-sum.Failed, count(t, c, hermes.Filter{States: []hermes.State{hermes.StateDue}}), "given back")
	}, hermes.WithRequestTimeout(2*time.Second))
}

// TestFault30_EveryReceiverIsDown: of very many hosts, each with a few rows. The pass ends, tries each row at most once, and
// holds a bounded number.
func TestFault30_EveryReceiverIsDown(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		const rows, hosts, batch = 3000, 250, 100
		first := saved(t, c)
		multiply(t, db, first.ID, rows-1)
		number := map[string]string{"postgres": "CAST(right(id, 6) AS integer)", "sqlite": "CAST(substr(id, -6) AS integer)"}[db.Name()]
		exec(t, db, "UPDATE failed_message SET host = '127.0.0.' || ("+number+" % ?) || ':1', url = 'http://127.0.0.' || ("+
			number+" % ?) || ':1/' WHERE id LIKE 'copy-%'", hosts, hosts)
		exec(t, db, "UPDATE failed_message SET host = '127.0.0.1:1', url = 'http://127.0.0.1:1/' WHERE id = ?", first.ID)
		most := int64(0)
		sum, err := c.RetryAll(context.Background(), hermes.RetryOptions{BatchSize: batch, Progress: func(hermes.RetrySummary) {
			most = max(most, count(t, c, hermes.Filter{States: []hermes.State{hermes.StateClaimed}}))
		}})
		require.NoError(t, err)
		assert.LessOrEqual(t, most, int64(10*batch), "not more, the more rows there are")
		assert.Zero(t, sum.Delivered)
		assert.GreaterOrEqual(t, sum.Failed, int64(5*hosts))
		assert.EqualValues(t, rows, count(t, c, hermes.Filter{}))
		assert.Zero(t, count(t, c, hermes.Filter{States: []hermes.State{hermes.StateClaimed}}))
		failed := int64(0)
		for m, err := range c.Monitor().All(context.Background(), hermes.Filter{}) {
			require.NoError(t, err)
			assert.LessOrEqual(t, m.Retries, 1)
			failed += int64(m.Retries)
		}
		assert.Equal(t, sum.Failed, failed)
	}, hermes.WithRedeliveryBackoff(hermes.ConstantBackoff(0)))
}

// TestFault31_TwentyProcessesWithATransactionOpen: they make passes at the same time over a healthy host's rows and older
// ones of a dead one, while an idle transaction keeps PostgreSQL from cleaning up.
func TestFault31_TwentyProcessesWithATransactionOpen(t *testing.T) {
	eachDSN(t, func(t *testing.T, dsn string) {
		const rows = 2000
		db := testdb.Open(t, dsn)
		processes := 20
		if db.Name() == "sqlite" {
			processes = 4 // who write to a file in turn
		}
		c := newClient(t, db)
		r, dead := newReceiver(t, statuses(200)), newReceiver(t, statuses(200))
		dead.Close()
		multiply(t, db, saved(t, c, to(dead.URL), dueSince(2*time.Hour)).ID, rows-1)
		exec(t, db, "UPDATE failed_message SET id = 'dead-' || id")
		multiply(t, db, saved(t, c, to(r.URL)).ID, rows-1)
		if db.Name() == "postgres" {
			tx := db.Begin()
			require.NoError(t, tx.Exec("SELECT count(*) FROM failed_message").Error)
			defer tx.Rollback()
		}
		var delivered, failed int
		for i, p := range inProcesses(t, processes, "retry all", dsn) {
			sum := strings.Fields(p.IDs[0])
			t.Logf("process %d: delivered %s, failed %s, released %s, in %v", i+1, sum[0], sum[1], sum[2], p.Elapsed)
			n, err := strconv.Atoi(sum[0])
			require.NoError(t, err)
			delivered += n
			n, err = strconv.Atoi(sum[1])
			require.NoError(t, err)
			failed += n
		}
		assert.Equal(t, rows, delivered)
		assert.Len(t, r.received(), rows, "each once")
		assert.LessOrEqual(t, failed, processes*(5+16), "the dead host is not hammered")
		assert.EqualValues(t, rows, count(t, c, hermes.Filter{}), "its rows are all there")
		assert.EqualValues(t, rows, count(t, c, hermes.Filter{Host: strings.TrimPrefix(dead.URL, "http://")}))
		assert.Zero(t, count(t, c, hermes.Filter{States: []hermes.State{hermes.StateClaimed}}))
	})
}

// TestRetryAllWaitsWithoutWorking: while all that it may send is being sent, and other hosts' turns have come.
func TestRetryAllWaitsWithoutWorking(t *testing.T) {
	eachDSN(t, func(t *testing.T, dsn string) {
		c := newClient(t, testdb.Open(t, dsn))
		r := newReceiver(t, func(int, http.ResponseWriter, *http.Request) { <-time.After(500 * time.Millisecond) })
		other := newReceiver(t, r.answer)
		for i := range 2 {
			saved(t, c, to(r.URL), dueSince(time.Hour+time.Duration(i)*time.Second))
			saved(t, c, to(other.URL), dueSince(time.Hour+time.Duration(i)*time.Second))
		}
		p := inProcesses(t, 1, "retry one by one, at a rate", dsn)[0]
		fields := strings.Fields(p.IDs[0])
		require.Equal(t, "4", fields[0])
		allocations, err := strconv.Atoi(fields[1])
		require.NoError(t, err)
		t.Logf("%d objects allocated", allocations)
		assert.Less(t, allocations, 20_000)
	})
}

// TestFault29_ManySlowHosts: they have more rows, and older ones, than a pass holds at a time. They answer when all of
// another host's rows have been sent.
func TestFault29_ManySlowHosts(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		const hosts, rows, others = 8, 150, 20
		done := make(chan struct{})
		for i := range hosts {
			slow := newReceiver(t, func(_ int, _ http.ResponseWriter, req *http.Request) {
				select {
				case <-done:
				case <-req.Context().Done():
				}
			})
			m := saved(t, c, to(slow.URL), dueSince(3*time.Hour-time.Duration(i)*time.Minute))
			multiply(t, db, m.ID, rows-1)
			exec(t, db, "UPDATE failed_message SET id = id || ? WHERE id LIKE 'copy-%' AND id NOT LIKE '%/%'", fmt.Sprintf("/%d", i))
		}
		r := newReceiver(t, func(n int, _ http.ResponseWriter, _ *http.Request) {
			if n == others {
				close(done)
			}
		})
		for range others {
			saved(t, c, to(r.URL), dueSince(time.Hour))
		}
		sum := retryAll(t, c, hermes.RetryOptions{BatchSize: 50, PerHost: 2, Concurrency: 32})
		assert.Equal(t, hermes.RetrySummary{Delivered: hosts*rows + others}, sum, "nobody had to give up waiting")
	}, hermes.WithRequestTimeout(20*time.Second))
}
