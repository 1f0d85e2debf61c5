package hermes_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/driver/postgres"
	"gorm.io/driver/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
	"gorm.io/gorm/schema"

	"github.com/hermeshttp/hermes"
)

func TestQueriesAsUsersWriteThem(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		round := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		for i, id := range []string{"a", "b", "c"} {
			saved(t, c, func(m *hermes.FailedMessage) {
				m.ID, m.CreatedAt, m.StatusCode, m.Host = id, round.Add(time.Duration(i)*time.Hour), 500+i, id+".example.com"
				m.Header = http.Header{"A": {"1", "caf\xe9"}}
				m.Metadata = map[string]string{"k": id}
				m.Schedule = []time.Duration{time.Hour}
				m.AttemptLog = []hermes.AttemptRecord{{At: round, StatusCode: 500, Kind: hermes.KindStatus, Instance: "i"}}
			})
		}
		b := row(t, c, "b")
		find := func(query any, args ...any) string {
			t.Helper()
			var msgs []*hermes.FailedMessage
			require.NoError(t, db.Where(query, args...).Order("id").Find(&msgs).Error)
			return strings.Join(idsOf(msgs), "")
		}
		for _, at := range []time.Time{b.CreatedAt, round.Add(time.Hour)} {
			assert.Equal(t, "a", find("created_at < ?", at))
			assert.Equal(t, "ab", find("created_at <= ?", at))
			assert.Equal(t, "b", find("created_at = ?", at))
			assert.Equal(t, "c", find("created_at > ?", at))
			assert.Equal(t, "bc", find("created_at >= ?", at))
		}
		assert.Equal(t, "a", find("created_at < ?", time.Date(2026, 3, 1, 13, 0, 0, 0, time.UTC)))
		assert.Equal(t, "abc", find("created_at < ? AND next_attempt_at <= ?", time.Now().UTC(), time.Now().UTC()))
		assert.Equal(t, "bc", find("status_code > ?", 500))
		assert.Equal(t, "ab", find("status_code IN ?", []int{500, 501}))
		assert.Equal(t, "c", find("host = ?", "c.example.com"))
		assert.Equal(t, "abc", find("retryable"))
		assert.Equal(t, "abc", find("retryable = ? AND claimed_until IS NULL", true))
		assert.Equal(t, "b", find(map[string]any{"id": "b"}))
		assert.Equal(t, "c", find(&hermes.FailedMessage{Host: "c.example.com"}))

		var first, again, last hermes.FailedMessage
		require.NoError(t, db.First(&first, "id = ?", "b").Error)
		first.CreatedAt, first.UpdatedAt, first.NextAttemptAt = b.CreatedAt, b.UpdatedAt, b.NextAttemptAt // the driver's zone
		assert.Equal(t, b, &first)
		require.NoError(t, db.Order("created_at DESC").First(&last).Error)
		assert.Equal(t, "c", last.ID)
		again.ID = "a"
		require.NoError(t, db.First(&again).Error)
		assert.Equal(t, 500, again.StatusCode)
		var hosts []string
		require.NoError(t, db.Model(&hermes.FailedMessage{}).Where("status_code >= 500").Order("id").Pluck("host", &hosts).Error)
		assert.Equal(t, []string{"a.example.com", "b.example.com", "c.example.com"}, hosts)

		require.NoError(t, db.Model(&again).Update("status_code", 418).Error)
		updated := row(t, c, "a")
		assert.Equal(t, 418, updated.StatusCode)
		assert.NoError(t, updated.Unreadable())
		require.NoError(t, db.Where("created_at < ?", b.CreatedAt).Delete(&hermes.FailedMessage{}).Error)
		require.NoError(t, db.Delete(&last).Error)
		assert.Equal(t, "b", only(t, c).ID, "deleted for good")
		assert.ErrorIs(t, db.First(&hermes.FailedMessage{}, "id = ?", "a").Error, gorm.ErrRecordNotFound)
	})
}

func TestARowCreatedByGORM(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		r := newReceiver(t, statuses(200))
		now := time.Date(2026, 3, 1, 12, 0, 0, 120000000, time.UTC)
		want := sample(to(r.URL), func(m *hermes.FailedMessage) {
			m.CreatedAt, m.UpdatedAt, m.NextAttemptAt, m.NotAfter = now, now.Add(time.Hour), &now, ptr(time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC))
			m.Header = http.Header{"A": {"1", "caf\xe9", ""}, "B": nil}
			m.Body = []byte("\x00\xff")
			m.Metadata = map[string]string{"k": "v"}
			m.Schedule = []time.Duration{time.Hour}
			m.AttemptLog = []hermes.AttemptRecord{{At: now, Duration: 1, StatusCode: 503, Kind: hermes.KindStatus, Instance: "i"}}
		})
		copied := *want
		require.NoError(t, db.Create(&copied).Error)
		assert.Equal(t, want, row(t, c, want.ID))

		empty := sample(to(r.URL), func(m *hermes.FailedMessage) {
			m.CreatedAt, m.UpdatedAt, m.NextAttemptAt, m.Header, m.Body = now, now, &now, nil, nil
		})
		require.NoError(t, db.Create(empty).Error)
		m := row(t, c, empty.ID)
		require.NoError(t, m.Unreadable())
		assert.Empty(t, m.Header)
		assert.Empty(t, m.Body)
		assert.Empty(t, m.Metadata)
		for _, m := range gather(t, c, hermes.GatherOptions{}) {
			resp, err := c.RetryMessage(context.Background(), m)
			require.NoError(t, err)
			assert.True(t, resp.Succeeded())
		}
		assert.Len(t, r.received(), 2)

		bad := sample(func(m *hermes.FailedMessage) { m.Header = http.Header{"A": {"x\r\nB: y"}, "B": {"z"}} })
		assert.ErrorIs(t, db.Create(bad).Error, hermes.ErrInvalidMessage)
		assert.Zero(t, count(t, c, hermes.Filter{}))
	})
}

// openWith opens a database with settings of a user's own.
func openWith(t *testing.T, dsn string, simpleProtocol bool, config *gorm.Config) *gorm.DB {
	t.Helper()
	dialector := sqlite.Open(dsn)
	if !strings.HasPrefix(dsn, "file:") {
		dialector = postgres.New(postgres.Config{DSN: dsn, PreferSimpleProtocol: simpleProtocol})
	}
	db, err := gorm.Open(dialector, config)
	require.NoError(t, err)
	t.Cleanup(func() {
		pool, err := db.DB()
		require.NoError(t, err)
		require.NoError(t, pool.Close())
	})
	return db
}

// TestAUsersSettingsDoNotMatter: nor do their callbacks and logger get to see a statement.
func TestAUsersSettingsDoNotMatter(t *testing.T) {
	for name, config := range map[string]gorm.Config{
		"PrepareStmt":            {PrepareStmt: true},
		"SkipDefaultTransaction": {SkipDefaultTransaction: true},
		"NamingStrategy":         {NamingStrategy: schema.NamingStrategy{TablePrefix: "app_", NoLowerCase: true}},
		"NowFunc":                {NowFunc: func() time.Time { return time.Date(1999, 1, 1, 0, 0, 0, 0, time.FixedZone("far", 50000)) }},
		"simple protocol":        {TranslateError: true}, // what PgBouncer wants
		"QueryFields":            {QueryFields: true, AllowGlobalUpdate: true, CreateBatchSize: 1, DisableNestedTransaction: true},
	} {
		t.Run(name, func(t *testing.T) {
			eachDSN(t, func(t *testing.T, dsn string) {
				seen, once := &safeBuffer{}, hermes.WithMaxRetryAttempts(0)
				own := config
				own.Logger = logger.New(log.New(seen, "", 0), logger.Config{LogLevel: logger.Info, SlowThreshold: 1})
				db := openWith(t, dsn, name == "simple protocol", &own)
				spy := func(db *gorm.DB) { fmt.Fprintln(seen, "callback:", db.Statement.SQL.String()) }
				for _, register := range []func(string, func(*gorm.DB)) error{
					db.Callback().Create().Register, db.Callback().Query().Register, db.Callback().Update().Register,
					db.Callback().Delete().Register, db.Callback().Raw().Register, db.Callback().Row().Register,
				} {
					require.NoError(t, register("spy", spy))
				}
				life(t, newClient(t, db, once))
				life(t, newClient(t, db.Session(&gorm.Session{PrepareStmt: true, NewDB: true}), once))
				life(t, newClient(t, db.WithContext(context.Background()).Where("1 = 0").Debug(), once))
				assert.Empty(t, seen.String())

				var n int64
				require.NoError(t, db.Model(&hermes.FailedMessage{}).Count(&n).Error)
				assert.Zero(t, n)
				assert.Contains(t, seen.String(), "callback:", "it would have been seen")
			})
		})
	}
}

// life takes a message through all that can happen to it.
func life(t *testing.T, c *hermes.Client) {
	t.Helper()
	ctx := context.Background()
	r := newReceiver(t, statuses(500, 500, 400, 200))
	resp, err := c.SendMessage(post(t, r.URL, "x"), hermes.Metadata(map[string]string{"a": "b"}), hermes.Schedule(0, time.Hour))
	require.NoError(t, err)
	id := resp.FailedMessageID
	assert.WithinDuration(t, time.Now(), row(t, c, id).CreatedAt, 10*time.Second)
	filter := hermes.Filter{IDs: []string{id}, Metadata: map[string]string{"a": "b"}, StatusCodes: []int{500}, Text: "HTTP",
		URLLike: "http%", MinAge: time.Nanosecond, States: []hermes.State{hermes.StateDue}, CreatedBefore: time.Now().Add(time.Hour)}
	assert.EqualValues(t, 1, count(t, c, filter))
	msgs := gather(t, c, hermes.GatherOptions{Filter: filter})
	require.Len(t, msgs, 1)
	require.NoError(t, c.Release(ctx, msgs...))
	_, err = c.RetryMessage(ctx, gather(t, c, hermes.GatherOptions{})[0])
	require.NoError(t, err)
	assert.Equal(t, []string{id}, listed(t, c, hermes.Filter{}, hermes.ListOptions{OrderBy: hermes.OrderByNextAttempt, Limit: 1}))
	for range 2 {
		n, err := c.Reschedule(ctx, hermes.Everything(), time.Time{})
		require.NoError(t, err)
		assert.EqualValues(t, 1, n)
		_, err = c.RetryMessage(ctx, row(t, c, id))
		require.NoError(t, err)
	}
	assert.Len(t, r.received(), 4)
	require.NoError(t, c.Save(ctx, sample()))
	require.NoError(t, c.PurgeMessage(ctx, only(t, c)))
	require.NoError(t, c.Ready(ctx))
}

func TestDatabasesThatNewRefuses(t *testing.T) {
	each(t, func(t *testing.T, _ *hermes.Client, db *gorm.DB) {
		refused := func(db *gorm.DB, word string) {
			t.Helper()
			c, err := hermes.New(db, hermes.WithRetryInterval(-1))
			assert.Nil(t, c)
			assert.ErrorIs(t, err, hermes.ErrInvalidOption)
			assert.ErrorContains(t, err, word)
			assert.ErrorContains(t, err, "WithRetryInterval", "all errors at once")
		}
		refused(nil, "nil")
		refused(&gorm.DB{}, "nil")
		refused(&gorm.DB{Config: &gorm.Config{}}, "nil")
		refused(db.Session(&gorm.Session{DryRun: true}), "DryRun")
		tx := db.Begin()
		require.NoError(t, tx.Error)
		defer tx.Rollback()
		refused(tx, "transaction")
		refused(tx.WithContext(context.Background()).Where("1 = 1"), "transaction")
		prepared := db.Session(&gorm.Session{PrepareStmt: true})
		if db.Name() == "postgres" { // SQLite has one writer, which is tx
			inner := prepared.Begin()
			require.NoError(t, inner.Error)
			defer inner.Rollback()
			refused(inner, "transaction")
		}
		refused(&gorm.DB{Config: &gorm.Config{Dialector: another{db.Dialector}, ConnPool: db.ConnPool}}, "mysql")
		_, err := hermes.NewMonitor(tx)
		assert.ErrorIs(t, err, hermes.ErrInvalidOption)
		_, err = hermes.Migrations("mysql")
		assert.ErrorIs(t, err, hermes.ErrInvalidOption)
	})
}

// another is a dialect that is not supported.
type another struct{ gorm.Dialector }

func (another) Name() string { return "mysql" }
