package hermes_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

// notSaved sends a message that fails for good to a store that does not take it.
func notSaved(t *testing.T, c *hermes.Client, req *http.Request, opts ...hermes.SendOption) *hermes.NotSavedError {
	t.Helper()
	start := time.Now()
	resp, err := c.SendMessage(req, opts...)
	assert.Less(t, time.Since(start), 10*time.Second)
	var lost *hermes.NotSavedError
	require.ErrorAs(t, err, &lost)
	assert.ErrorIs(t, err, hermes.ErrNotSaved)
	assert.Same(t, resp, lost.Response)
	assert.Empty(t, resp.FailedMessageID)
	var failure *hermes.SendError
	assert.ErrorAs(t, err, &failure)
	assert.Error(t, lost.Err)
	return lost
}

// brokenStores are ways in which a database takes nothing.
func brokenStores() map[string]func(t *testing.T, db *gorm.DB, dsn string) *gorm.DB {
	return map[string]func(t *testing.T, db *gorm.DB, dsn string) *gorm.DB{
		"closed pool": func(t *testing.T, _ *gorm.DB, dsn string) *gorm.DB {
			db := testdb.Open(t, dsn)
			pool, err := db.DB()
			require.NoError(t, err)
			require.NoError(t, pool.Close())
			return db
		},
		"read-only": func(t *testing.T, db *gorm.DB, dsn string) *gorm.DB {
			if db.Name() == "postgres" {
				return testdb.Open(t, withParam(dsn, "default_transaction_read_only=on"))
			}
			return testdb.Open(t, withParam(dsn, "_query_only=true"))
		},
		"table missing": func(t *testing.T, db *gorm.DB, _ string) *gorm.DB {
			exec(t, db, "ALTER TABLE failed_message RENAME TO away")
			t.Cleanup(func() { exec(t, db, "ALTER TABLE away RENAME TO failed_message") })
			return db
		},
		"the pool's one connection in use": func(t *testing.T, _ *gorm.DB, dsn string) *gorm.DB {
			db := testdb.Open(t, dsn)
			pool, err := db.DB()
			require.NoError(t, err)
			pool.SetMaxOpenConns(1)
			tx := db.Begin()
			require.NoError(t, tx.Error)
			t.Cleanup(func() { tx.Rollback() })
			return db
		},
		"no such server": func(t *testing.T, db *gorm.DB, dsn string) *gorm.DB {
			faulty, plan := openFaulty(t, db, dsn)
			plan.plan(fault{at: 1, onwards: true})
			return faulty
		},
	}
}

func TestAStoreThatDoesNotTakeTheMessageIsANotSavedError(t *testing.T) {
	for name, broken := range brokenStores() {
		t.Run(name, func(t *testing.T) {
			eachDSN(t, func(t *testing.T, dsn string) {
				healthy := newClient(t, testdb.Open(t, dsn))
				r := newReceiver(t, statuses(503, 200))
				var lost *hermes.NotSavedError
				t.Run("broken", func(t *testing.T) {
					db := broken(t, testdb.Open(t, dsn), dsn)
					c, err := hermes.New(db, hermes.WithSaveTimeout(300*time.Millisecond), hermes.WithMaxRetryAttempts(0))
					require.NoError(t, err)
					lost = notSaved(t, c, post(t, r.URL, "hello"))
				})
				if t.Failed() {
					return
				}
				ctx := context.Background()
				require.NoError(t, healthy.Save(ctx, lost.Message))
				resp, err := healthy.RetryMessage(ctx, lost.Message)
				require.NoError(t, err)
				assert.True(t, resp.Succeeded())
				assert.Equal(t, r.received()[0], r.received()[1])
			})
		})
	}
}

// TestSavingOutlastsTheCallersContext: its end is why the message is saved.
func TestSavingOutlastsTheCallersContext(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		ctx, cancel := context.WithCancel(context.Background())
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) { cancel(); w.WriteHeader(503) })
		resp, err := c.SendMessage(post(t, r.URL, "x").WithContext(ctx))
		require.NoError(t, err)
		assert.ErrorIs(t, resp.Err(), context.Canceled)
		assert.Equal(t, 1, row(t, c, resp.FailedMessageID).Attempts)
	}, hermes.WithRetryInterval(time.Hour))
}

func TestSavingIsTriedAgainWithinItsTime(t *testing.T) {
	eachDSN(t, func(t *testing.T, dsn string) {
		db := testdb.Open(t, dsn)
		healthy := newClient(t, db)
		faulty, plan := openFaulty(t, db, dsn)
		c, err := hermes.New(faulty, hermes.WithMaxRetryAttempts(0))
		require.NoError(t, err)
		for _, p := range []fault{{at: 1}, {at: 1, applied: true}} {
			plan.plan(p)
			resp, err := c.SendMessage(post(t, newReceiver(t, statuses(503)).URL, "x"))
			require.NoError(t, err)
			assert.Equal(t, 2, plan.made())
			assert.Equal(t, 1, row(t, healthy, resp.FailedMessageID).Attempts)
		}
		assert.EqualValues(t, 2, count(t, healthy, hermes.Filter{}))
	})
}

func TestTheMessageOfANotSavedErrorSurvivesEncoding(t *testing.T) {
	eachDSN(t, func(t *testing.T, dsn string) {
		db := testdb.Open(t, dsn)
		healthy := newClient(t, db)
		faulty, plan := openFaulty(t, db, dsn)
		c, err := hermes.New(faulty, hermes.WithSaveTimeout(time.Second), hermes.WithMaxRetryAttempts(1),
			hermes.WithRetryInterval(0), hermes.WithSender("s"))
		require.NoError(t, err)
		plan.plan(fault{at: 1, onwards: true, applied: true}) // it says no and does it
		req := post(t, newReceiver(t, statuses(503)).URL+"/%FF?a=%00", "\x00\xff\xfe <>&\u2028")
		req.Header["X-Obs"] = []string{"caf\xe9", "", "b"}
		req.Host = "other"
		lost := notSaved(t, c, req, hermes.Schedule(time.Hour), hermes.NotAfter(time.Now().Add(72*time.Hour)),
			hermes.Metadata(map[string]string{"a": "b\u2028"}))

		data, err := lost.Message.MarshalBinary()
		require.NoError(t, err)
		var again hermes.FailedMessage
		require.NoError(t, again.UnmarshalBinary(data))
		assert.Equal(t, lost.Message, &again)

		ctx := context.Background()
		applied := row(t, healthy, again.ID)
		require.NoError(t, healthy.Save(ctx, &again))
		assert.Equal(t, applied, row(t, healthy, again.ID))
		require.NoError(t, healthy.PurgeMessage(ctx, &again))
		for range 2 {
			require.NoError(t, healthy.Save(ctx, &again))
		}
		got := only(t, healthy)
		assert.Equal(t, applied.Header, got.Header)
		assert.Equal(t, applied.Body, got.Body)
		assert.Equal(t, applied.AttemptLog, got.AttemptLog)
		assert.Equal(t, applied.Schedule, got.Schedule)
		assert.WithinDuration(t, *applied.NextAttemptAt, *got.NextAttemptAt, 5*time.Second)
	})
}

func TestUnmarshalBinaryRefusesWhatIsNoMessage(t *testing.T) {
	t.Parallel()
	good, err := sample().MarshalBinary()
	require.NoError(t, err)
	for _, data := range []string{"", "{}", "null", string(good[:len(good)-1]), `{"Version":2}`, `{"Version":1,"Header":"Zm9v"}`,
		`{"Version":1,"Header":7}`} {
		var m hermes.FailedMessage
		assert.ErrorIs(t, m.UnmarshalBinary([]byte(data)), hermes.ErrUnreadable, data)
		assert.Zero(t, m)
	}
}

// TestEveryCallOfTheStoreFailsOnce (and from then on): delivered, or a row, or an error that holds the message.
func TestEveryCallOfTheStoreFailsOnce(t *testing.T) {
	for name, kind := range map[string]fault{
		"before it is applied":      {},
		"after it was applied":      {applied: true},
		"from then on":              {onwards: true},
		"from then on, but applied": {onwards: true, applied: true},
	} {
		t.Run(name, func(t *testing.T) {
			eachDSN(t, func(t *testing.T, dsn string) {
				db := testdb.Open(t, dsn)
				healthy := newClient(t, db)
				faulty, plan := openFaulty(t, db, dsn)
				c, err := hermes.New(faulty, hermes.WithMaxRetryAttempts(0), hermes.WithSaveTimeout(200*time.Millisecond))
				require.NoError(t, err)
				for n := 1; ; n++ {
					next := kind
					next.at = n
					plan.plan(next)
					s := storeRun{t: t, c: c, healthy: healthy, db: db, plan: plan, lasting: kind.onwards,
						r: newReceiver(t, statuses(503, 503, 200))}
					s.run()
					if t.Failed() || s.errors == 0 && plan.made() < n {
						assert.Greater(t, n, 5) // insert, gather, take, record, take, delete
						return
					}
					exec(t, db, "DELETE FROM failed_message")
				}
			})
		})
	}
}

// storeRun is a message's life on a faulty database: sent and failed, gathered, retried and failed, delivered.
type storeRun struct {
	t       *testing.T
	c       *hermes.Client
	healthy *hermes.Client
	db      *gorm.DB
	plan    *faults
	r       *receiver
	lasting bool // the database does not come back by itself
	errors  int
}

func (s *storeRun) run() {
	ctx := context.Background()
	id := s.send()
	held := &hermes.FailedMessage{ID: id}
	if msgs, err := s.c.GatherFailedMessagesForRetry(ctx, hermes.GatherOptions{}); err != nil {
		s.heal(id)
	} else {
		require.Len(s.t, msgs, 1)
		held = msgs[0]
	}
	for len(s.r.received()) < 3 {
		require.Less(s.t, s.errors, 4)
		sent := len(s.r.received())
		_, err := s.c.RetryMessage(ctx, held)
		now := len(s.r.received())
		switch {
		case err == nil && now == 3:
			assert.Zero(s.t, count(s.t, s.healthy, hermes.Filter{}), "delivered without an error, and yet a row")
		case err == nil:
			assert.Equal(s.t, now, row(s.t, s.healthy, id).Attempts)
		case now < 3:
			s.heal(id)
		}
		assert.LessOrEqual(s.t, now, sent+1)
		if err != nil && !s.lasting {
			assert.Equal(s.t, sent, now, "what was sent is recorded at the second try: %v", err)
		}
	}
}

// send sends the message and brings it into the table, if it did not get there.
func (s *storeRun) send() (id string) {
	resp, err := s.c.SendMessage(post(s.t, s.r.URL, "x"))
	if err == nil {
		row(s.t, s.healthy, resp.FailedMessageID)
		return resp.FailedMessageID
	}
	var lost *hermes.NotSavedError
	require.ErrorAs(s.t, err, &lost)
	require.NoError(s.t, s.healthy.Save(context.Background(), lost.Message))
	s.heal(lost.Message.ID)
	return lost.Message.ID
}

// heal is what happens some time after an error: the database works again, and claims have run out. The row is there.
func (s *storeRun) heal(id string) {
	s.errors++
	s.plan.plan(fault{})
	expire(s.t, s.db, id)
}
