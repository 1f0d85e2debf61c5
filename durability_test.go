package hermes_test

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

// eachSavingFirst runs a test in the modes in which a sender can hold a row, on both databases.
func eachSavingFirst(t *testing.T, test func(t *testing.T, c *hermes.Client, db *gorm.DB), opts ...hermes.Option) {
	t.Parallel()
	for name, mode := range map[string]hermes.Durability{
		"before sending":  hermes.SaveBeforeSend,
		"before retrying": hermes.SaveBeforeRetries,
	} {
		t.Run(name, func(t *testing.T) {
			each(t, test, append([]hermes.Option{hermes.WithDurability(mode)}, opts...)...)
		})
	}
}

// eachFaulty runs a test on both databases: with a healthy client, and with what one on a faulty database is made from.
func eachFaulty(t *testing.T, test func(t *testing.T, healthy *hermes.Client, db, faulty *gorm.DB, plan *faults)) {
	eachDSN(t, func(t *testing.T, dsn string) {
		db := testdb.Open(t, dsn)
		healthy := newClient(t, db)
		faulty, plan := openFaulty(t, db, dsn)
		test(t, healthy, db, faulty, plan)
	})
}

// impatient returns a client on a database that may fail, which gives up soon.
func impatient(t testing.TB, db *gorm.DB, opts ...hermes.Option) *hermes.Client {
	t.Helper()
	opts = append([]hermes.Option{hermes.WithRetryInterval(time.Millisecond), hermes.WithSaveTimeout(700 * time.Millisecond)}, opts...)
	c, err := hermes.New(db, opts...)
	require.NoError(t, err)
	return c
}

// assertHeld asserts that nobody but its sender gets at a row.
func assertHeld(t *testing.T, db *gorm.DB, id string) {
	ctx := context.Background()
	other, err := hermes.New(db, hermes.WithInstanceID("another"))
	if !assert.NoError(t, err) {
		return
	}
	held, err := other.Monitor().Get(ctx, id)
	if assert.NoError(t, err) {
		assert.Equal(t, hermes.StateClaimed, held.State())
		assert.Equal(t, 1, held.Claims)
	}
	msgs, err := other.GatherFailedMessagesForRetry(ctx, hermes.GatherOptions{})
	assert.NoError(t, err)
	assert.Empty(t, msgs)
	sum, err := other.RetryAll(ctx, hermes.RetryOptions{})
	assert.NoError(t, err)
	sum.Elapsed = 0
	assert.Zero(t, sum)
	_, err = other.RetryMessage(ctx, held)
	assert.ErrorIs(t, err, hermes.ErrClaimed)
	assert.ErrorIs(t, other.PurgeMessage(ctx, &hermes.FailedMessage{ID: id}), hermes.ErrClaimed)
}

func TestSaveBeforeSendHasTheRowWhileSending(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		r := newReceiver(t, func(n int, w http.ResponseWriter, req *http.Request) {
			id := req.Header.Get("Idempotency-Key")
			assertHeld(t, db, id)
			m, err := c.Monitor().Get(req.Context(), id)
			if assert.NoError(t, err) {
				assert.Zero(t, m.Attempts+m.Retries+m.StatusCode)
				assert.Empty(t, m.FailureKind)
				assert.Equal(t, "hello", string(m.Body))
			}
			statuses(503, 200)(n, w, req)
		})
		resp, err := c.SendMessage(post(t, r.URL, "hello"))
		require.NoError(t, err)
		assert.True(t, resp.Succeeded())
		assert.Equal(t, 2, resp.Attempts)
		assert.Empty(t, resp.FailedMessageID)
		assert.Zero(t, count(t, c, hermes.Filter{}))
	}, hermes.WithDurability(hermes.SaveBeforeSend))
}

func TestSaveBeforeRetriesHasTheRowFromTheFirstFailureOn(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		r := newReceiver(t, func(n int, w http.ResponseWriter, req *http.Request) {
			if n == 1 {
				assert.Zero(t, count(t, c, hermes.Filter{}))
			} else {
				assertHeld(t, db, req.Header.Get("Idempotency-Key"))
				m := only(t, c)
				assert.Equal(t, 1, m.Attempts)
				assert.Equal(t, 503, m.StatusCode)
				assert.Len(t, m.AttemptLog, 1)
			}
			statuses(503, 503, 200)(n, w, req)
		})
		resp, err := c.SendMessage(post(t, r.URL, "hello"))
		require.NoError(t, err)
		assert.True(t, resp.Succeeded())
		assert.Len(t, r.received(), 3)
		assert.Empty(t, resp.FailedMessageID)
		assert.Zero(t, count(t, c, hermes.Filter{}))
	}, hermes.WithDurability(hermes.SaveBeforeRetries))
}

func TestSavedFirstAndFailed(t *testing.T) {
	type end struct {
		answers  []int
		opts     []hermes.SendOption
		state    hermes.State
		dueAfter time.Duration
	}
	for name, test := range map[string]end{
		"every attempt":   {answers: []int{503}, state: hermes.StateDue},
		"with a schedule": {answers: []int{503}, opts: []hermes.SendOption{hermes.Schedule(time.Hour)}, state: hermes.StateWaiting, dueAfter: time.Hour},
		"at once invalid": {answers: []int{404}, state: hermes.StateInvalid},
		"later invalid":   {answers: []int{503, 404}, state: hermes.StateInvalid},
		"with a NotAfter": {answers: []int{503}, opts: []hermes.SendOption{hermes.NotAfter(time.Now().Add(time.Hour))}, state: hermes.StateDue},
	} {
		t.Run(name, func(t *testing.T) {
			eachSavingFirst(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
				r := newReceiver(t, statuses(test.answers...))
				resp, err := c.SendMessage(post(t, r.URL, "x"), test.opts...)
				require.NoError(t, err)
				sent := len(r.received())
				m := only(t, c)
				assert.Equal(t, m.ID, resp.FailedMessageID)
				assert.Equal(t, test.state, m.State())
				assert.Equal(t, test.answers[len(test.answers)-1], m.StatusCode)
				assert.Equal(t, sent, m.Attempts)
				assert.Equal(t, sent, resp.Attempts)
				assert.Len(t, m.AttemptLog, sent)
				assert.Zero(t, m.Retries+m.Claims, "no retry of the row, no claim")
				assert.Empty(t, m.ClaimToken+m.ClaimedBy)
				if test.state == hermes.StateInvalid {
					assert.True(t, resp.Invalid())
					assert.Nil(t, m.NextAttemptAt)
				} else {
					assert.WithinDuration(t, time.Now().Add(test.dueAfter), *m.NextAttemptAt, 20*time.Second)
				}
			}, hermes.WithMaxRetryAttempts(2))
		})
	}
}

func TestSavedFirstAndCanceled(t *testing.T) {
	eachSavingFirst(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		ctx, cancel := context.WithCancel(context.Background())
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(503)
			cancel()
		})
		resp, err := c.SendMessage(post(t, r.URL, "x").WithContext(ctx))
		require.NoError(t, err)
		assert.ErrorIs(t, resp.Err(), context.Canceled)
		assert.Equal(t, resp.FailedMessageID, only(t, c).ID)
		assert.Equal(t, hermes.StateDue, only(t, c).State())

		_, err = c.SendMessage(post(t, r.URL, "x").WithContext(ctx))
		assert.Equal(t, context.Canceled, err)
		assert.EqualValues(t, 1, count(t, c, hermes.Filter{}), "canceled before: nothing sent, nothing saved")
		assert.Len(t, r.received(), 1)
	}, hermes.WithRetryInterval(time.Hour))
}

func TestSavedFirstAndShutDownWhileWaiting(t *testing.T) {
	eachSavingFirst(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		ctx := context.Background()
		answered := make(chan struct{})
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(503)
			close(answered)
		})
		outcomes := sendAll(t, c, r.URL, 1)
		<-answered
		require.NoError(t, c.Shutdown(ctx))
		o := outcomes()[0]
		require.NoError(t, o.err)
		assert.ErrorIs(t, o.resp.Err(), hermes.ErrShutdown)
		assert.Equal(t, hermes.StateDue, row(t, c, o.resp.FailedMessageID).State())
		_, err := c.SendMessage(post(t, r.URL, "x"))
		assert.ErrorIs(t, err, hermes.ErrShutdown)
		assert.EqualValues(t, 1, count(t, c, hermes.Filter{}))
	}, hermes.WithRetryInterval(time.Hour))
}

func TestSavedFirstButForSaveOnFailureFalse(t *testing.T) {
	eachSavingFirst(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			assert.Zero(t, count(t, c, hermes.Filter{}))
			w.WriteHeader(503)
		})
		resp, err := c.SendMessage(post(t, r.URL, "x"), hermes.SaveOnFailure(false))
		var failure *hermes.SendError
		require.ErrorAs(t, err, &failure)
		assert.Equal(t, 6, resp.Attempts)
		assert.Zero(t, count(t, c, hermes.Filter{}))
	})
}

func TestSaveBeforeSendThatFailsSendsNothing(t *testing.T) {
	eachFaulty(t, func(t *testing.T, healthy *hermes.Client, _, faulty *gorm.DB, plan *faults) {
		ctx := context.Background()
		var told atomic.Int32
		c := impatient(t, faulty, hermes.WithDurability(hermes.SaveBeforeSend), hermes.WithHooks(hermes.Hooks{
			NotSaved: func(_ context.Context, info hermes.NotSavedInfo) {
				told.Add(1)
				assert.ErrorIs(t, info.Err, hermes.ErrNotSaved)
			},
		}))
		r := newReceiver(t, statuses(200))
		plan.plan(fault{at: 1, onwards: true})
		resp, err := c.SendMessage(post(t, r.URL, "hello"))
		var lost *hermes.NotSavedError
		require.ErrorAs(t, err, &lost)
		assert.ErrorIs(t, err, hermes.ErrNotSaved)
		assert.ErrorIs(t, err, errPlanned)
		assert.Nil(t, resp)
		assert.Nil(t, lost.Response)
		assert.EqualValues(t, 1, told.Load())
		assert.Empty(t, r.received())
		assert.Zero(t, count(t, healthy, hermes.Filter{}))

		require.NoError(t, healthy.Save(ctx, lost.Message))
		m := only(t, healthy)
		assert.Equal(t, hermes.StateDue, m.State())
		assert.Zero(t, m.Attempts)
		_, err = healthy.RetryMessage(ctx, m)
		require.NoError(t, err)
		require.Len(t, r.received(), 1)
		assert.Equal(t, "hello", r.received()[0].Body)
		assert.Equal(t, lost.Message.ID, r.received()[0].Header.Get("Idempotency-Key"))
	})
}

func TestSavedFirstAndDeliveredButNotDeleted(t *testing.T) {
	eachFaulty(t, func(t *testing.T, healthy *hermes.Client, db, faulty *gorm.DB, plan *faults) {
		c := impatient(t, faulty, hermes.WithDurability(hermes.SaveBeforeSend), hermes.WithSaveTimeout(2*time.Second))
		require.NoError(t, c.Ready(context.Background()), "it has a connection")
		r := newReceiver(t, func(int, http.ResponseWriter, *http.Request) { plan.plan(fault{at: 1, onwards: true}) })
		resp, err := c.SendMessage(post(t, r.URL, "x"))
		require.NoError(t, err)
		assert.True(t, resp.Succeeded())
		assert.NoError(t, resp.Err())
		m := only(t, healthy)
		assert.Equal(t, m.ID, resp.FailedMessageID)
		assert.Equal(t, hermes.StateClaimed, m.State())
		expire(t, db, m.ID)
		assert.EqualValues(t, 1, retryAll(t, healthy, hermes.RetryOptions{}).Delivered)
		got := r.received()
		assert.Equal(t, got[0].Header.Get("Idempotency-Key"), got[1].Header.Get("Idempotency-Key"))
	})
}

func TestSavedFirstAndTheOutcomeCouldNotBeRecorded(t *testing.T) {
	eachFaulty(t, func(t *testing.T, healthy *hermes.Client, db, faulty *gorm.DB, plan *faults) {
		for mode, breakAt := range map[hermes.Durability]int{hermes.SaveBeforeSend: 1, hermes.SaveBeforeRetries: 2} {
			c := impatient(t, faulty, hermes.WithDurability(mode), hermes.WithMaxRetryAttempts(1), hermes.WithSaveTimeout(2*time.Second))
			r := newReceiver(t, func(n int, w http.ResponseWriter, _ *http.Request) {
				if n == breakAt {
					plan.plan(fault{at: 1, onwards: true})
				}
				w.WriteHeader(503)
			})
			plan.plan(fault{})
			resp, err := c.SendMessage(post(t, r.URL, "x"))
			require.NoError(t, err)
			assert.Error(t, resp.Err())
			m := only(t, healthy)
			assert.Equal(t, m.ID, resp.FailedMessageID)
			assert.Equal(t, hermes.StateClaimed, m.State(), "until its time runs out")
			expire(t, db, m.ID)
			assert.Equal(t, hermes.StateDue, row(t, healthy, m.ID).State())
			require.NoError(t, healthy.PurgeMessage(context.Background(), m))
		}
	})
}

func TestSavedFirstAndTheClaimIsLost(t *testing.T) {
	for name, test := range map[string]struct {
		mode hermes.Durability
		at   int // the attempt during which another takes the row
	}{
		"before sending, first attempt":   {hermes.SaveBeforeSend, 1},
		"before sending, last attempt":    {hermes.SaveBeforeSend, 3},
		"before retrying, second attempt": {hermes.SaveBeforeRetries, 2},
		"before retrying, last attempt":   {hermes.SaveBeforeRetries, 3},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, _ *hermes.Client, db *gorm.DB) {
				var lost atomic.Int32
				c := newClient(t, db, hermes.WithMaxRetryAttempts(2), hermes.WithDurability(test.mode), hermes.WithHooks(hermes.Hooks{
					ClaimLost: func(context.Context, hermes.ClaimLostInfo) { lost.Add(1) },
					Saved:     func(context.Context, hermes.SavedInfo) { t.Error("nothing was recorded") },
				}))
				var others *hermes.FailedMessage
				r := newReceiver(t, func(n int, w http.ResponseWriter, req *http.Request) {
					if n == test.at {
						others = takeOver(t, db, req.Header.Get("Idempotency-Key"))
					}
					w.WriteHeader(503)
				})
				resp, err := c.SendMessage(post(t, r.URL, "x"))
				require.NoError(t, err, "the message is a row")
				assert.ErrorIs(t, resp.Err(), hermes.ErrClaimLost)
				assert.Equal(t, others.ID, resp.FailedMessageID)
				assert.Equal(t, lookedAt(others), only(t, c), "it is the other's, untouched")
				assert.EqualValues(t, 1, lost.Load())
				assert.Len(t, r.received(), test.at)
			})
		})
	}
}

func TestSavedFirstTheClaimIsLostAndItIsDelivered(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		r := newReceiver(t, func(_ int, _ http.ResponseWriter, req *http.Request) {
			takeOver(t, db, req.Header.Get("Idempotency-Key"))
		})
		resp, err := c.SendMessage(post(t, r.URL, "x"))
		require.NoError(t, err)
		assert.True(t, resp.Succeeded())
		assert.Zero(t, count(t, c, hermes.Filter{}))
	}, hermes.WithDurability(hermes.SaveBeforeSend))
}

// TestSavedFirstAndPurgedMeanwhile: it is neither delivered nor a row, so it is no success.
func TestSavedFirstAndPurgedMeanwhile(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			exec(t, db, "DELETE FROM failed_message")
			w.WriteHeader(503)
		})
		resp, err := c.SendMessage(post(t, r.URL, "x"))
		assert.ErrorIs(t, err, hermes.ErrClaimLost)
		assert.Equal(t, 503, resp.StatusCode)
		assert.Empty(t, resp.FailedMessageID)
		assert.Zero(t, count(t, c, hermes.Filter{}), "nothing brings it back")
	}, hermes.WithDurability(hermes.SaveBeforeSend))
}

// TestSavedFirstKeepsTheClaimDuringALongWait: one that is longer than half the claim's time. A trigger counts.
func TestSavedFirstKeepsTheClaimDuringALongWait(t *testing.T) {
	t.Parallel()
	db := testdb.SQLite(t)
	c := newClient(t, db, hermes.WithMaxRetryAttempts(1), hermes.WithRequestTimeout(time.Second),
		hermes.WithClaimTTL(11*time.Second), hermes.WithRetryInterval(6*time.Second), hermes.WithDurability(hermes.SaveBeforeSend))
	exec(t, db, "CREATE TABLE renewal (until datetime)")
	exec(t, db, "CREATE TRIGGER renewed AFTER UPDATE OF claimed_until ON failed_message "+
		"BEGIN INSERT INTO renewal VALUES (NEW.claimed_until); END")
	resp, err := c.SendMessage(post(t, newReceiver(t, statuses(503)).URL, "x"))
	require.NoError(t, err)
	assert.Equal(t, 2, resp.Attempts)
	var updates int
	require.NoError(t, db.Raw("SELECT count(*) FROM renewal").Scan(&updates).Error)
	assert.Equal(t, 3, updates, "renewed at half its time, renewed before the second attempt, freed")
}

func TestSaveBeforeRetriesGoesOnWithoutAStore(t *testing.T) {
	type end struct {
		name     string
		fault    fault
		healAt   int // the attempt during which the store comes back; 0: never
		answers  []int
		notSaved bool
		rows     int
	}
	down, answerLost := fault{at: 1, onwards: true}, fault{at: 1, onwards: true, applied: true}
	for _, test := range []end{
		{name: "and delivers", fault: down, answers: []int{503, 200}},
		{name: "and delivers, when it is back", fault: down, healAt: 2, answers: []int{503, 200}},
		{name: "and saves at the next failure", fault: down, healAt: 2, answers: []int{503}, rows: 1},
		{name: "and saves at the end", fault: down, healAt: 3, answers: []int{503}, rows: 1},
		{name: "and saves what is invalid", fault: down, healAt: 2, answers: []int{503, 404}, rows: 1},
		{name: "and tells that it did not", fault: down, answers: []int{503}, notSaved: true},
		{name: "that took it, and delivers", fault: answerLost, healAt: 2, answers: []int{503, 200}},
		{name: "that took it, and fails", fault: answerLost, healAt: 2, answers: []int{503}, rows: 1},
		{name: "that took it, and fails at the end", fault: answerLost, healAt: 3, answers: []int{503}, rows: 1},
		{name: "that took it, and is invalid", fault: answerLost, healAt: 2, answers: []int{503, 404}, rows: 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			eachFaulty(t, func(t *testing.T, healthy *hermes.Client, _, faulty *gorm.DB, plan *faults) {
				c := impatient(t, faulty, hermes.WithDurability(hermes.SaveBeforeRetries), hermes.WithMaxRetryAttempts(2))
				r := newReceiver(t, func(n int, w http.ResponseWriter, req *http.Request) {
					switch n {
					case 1:
						plan.plan(test.fault)
					case test.healAt:
						plan.plan(fault{})
					}
					statuses(test.answers...)(n, w, req)
				})
				resp, err := c.SendMessage(post(t, r.URL, "x"))
				if test.notSaved {
					var lost *hermes.NotSavedError
					require.ErrorAs(t, err, &lost)
					assert.Same(t, resp, lost.Response)
					require.NoError(t, healthy.Save(context.Background(), lost.Message))
					assert.Equal(t, 3, only(t, healthy).Attempts)
					return
				}
				require.NoError(t, err)
				assert.EqualValues(t, test.rows, count(t, healthy, hermes.Filter{}))
				if test.rows == 0 {
					assert.True(t, resp.Succeeded())
					assert.Empty(t, resp.FailedMessageID)
					return
				}
				m := only(t, healthy)
				assert.Equal(t, m.ID, resp.FailedMessageID)
				assert.Equal(t, !resp.Invalid(), m.Retryable, "the row says what the response says")
				assert.Equal(t, resp.Attempts, m.Attempts)
				assert.NotEqual(t, hermes.StateClaimed, m.State(), "nobody works on it any more")
			})
		})
	}
}

func TestSavedFirstThroughTransport(t *testing.T) {
	eachSavingFirst(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		more := make(chan struct{})
		r := newReceiver(t, func(_ int, w http.ResponseWriter, req *http.Request) {
			switch req.URL.Path {
			case "/stream":
				w.WriteHeader(200)
				w.(http.Flusher).Flush()
				<-more
				io.WriteString(w, "streamed")
			case "/moved":
				http.Redirect(w, req, "/here", http.StatusFound)
			case "/elsewhere":
				http.Redirect(w, req, "/here", http.StatusTemporaryRedirect)
			case "/here":
				io.WriteString(w, "here")
			default:
				w.WriteHeader(503)
			}
		})
		sdk := &http.Client{Transport: c.Transport()}

		resp, err := sdk.Do(post(t, r.URL+"/stream", "x"))
		require.NoError(t, err)
		assert.Zero(t, count(t, c, hermes.Filter{}), "its header has come: it is delivered")
		close(more)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		assert.Equal(t, "streamed", string(body))

		resp, err = sdk.Do(post(t, r.URL+"/elsewhere", "x"))
		require.NoError(t, err)
		body, err = io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		assert.Equal(t, "here", string(body))
		assert.Zero(t, count(t, c, hermes.Filter{}), "a 307 that the client above follows leaves no row")
		got := r.received()
		assert.Equal(t, got[len(got)-2].Header.Get("Idempotency-Key"), got[len(got)-1].Header.Get("Idempotency-Key"))

		resp, err = c.Transport().RoundTrip(post(t, r.URL+"/moved", "x"))
		require.NoError(t, err)
		resp.Body.Close()
		assert.Equal(t, 302, resp.StatusCode)
		m := only(t, c)
		assert.Equal(t, hermes.StateInvalid, m.State())
		assert.Equal(t, 302, m.StatusCode)

		resp, err = c.Transport().RoundTrip(request(t, "HEAD", r.URL+"/down", ""))
		require.NoError(t, err)
		resp.Body.Close()
		assert.EqualValues(t, 1, count(t, c, hermes.Filter{}), "what is safe never becomes a row")

		resp, err = c.Transport().RoundTrip(post(t, r.URL+"/down", "x"))
		require.NoError(t, err)
		resp.Body.Close()
		assert.Equal(t, 503, resp.StatusCode)
		assert.EqualValues(t, 1, count(t, c, hermes.Filter{States: []hermes.State{hermes.StateDue}}))
	})
}

// TestSaveBeforeSendThatEndsWhileItSaves: by its context, or by Shutdown. Nothing is sent, the row is free.
func TestSaveBeforeSendThatEndsWhileItSaves(t *testing.T) {
	for name, end := range map[string]struct {
		is  error
		end func(c *hermes.Client, cancel context.CancelFunc)
	}{
		"by its context": {context.Canceled, func(_ *hermes.Client, cancel context.CancelFunc) { cancel() }},
		"by Shutdown": {hermes.ErrShutdown, func(c *hermes.Client, _ context.CancelFunc) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_ = c.Shutdown(ctx) // does not wait
		}},
	} {
		t.Run(name, func(t *testing.T) {
			eachFaulty(t, func(t *testing.T, healthy *hermes.Client, db, faulty *gorm.DB, plan *faults) {
				c, err := hermes.New(faulty, hermes.WithDurability(hermes.SaveBeforeSend))
				require.NoError(t, err)
				r := newReceiver(t, statuses(200))
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				release := lockTable(t, db)
				plan.plan(fault{})
				req := post(t, r.URL, "x").WithContext(ctx)
				done := make(chan outcome, 1)
				go func() {
					resp, err := c.SendMessage(req)
					done <- outcome{resp, err}
				}()
				awaitCalls(t, plan, 1)
				end.end(c, cancel)
				release()
				o := <-done
				require.NoError(t, o.err)
				assert.ErrorIs(t, o.resp.Err(), end.is)
				assert.Empty(t, r.received())
				m := only(t, healthy)
				assert.Equal(t, m.ID, o.resp.FailedMessageID)
				assert.Equal(t, hermes.StateDue, m.State())
				require.NoError(t, c.Shutdown(context.Background()))
			})
		})
	}
}
