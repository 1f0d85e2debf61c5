package hermes_test

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/schema"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
	"github.com/hermeshttp/hermes/internal/uuidv7"
)

// sample is a message to save: attempted once, answered 503, due for an hour.
func sample(edits ...func(*hermes.FailedMessage)) *hermes.FailedMessage {
	due := time.Now().UTC().Add(-time.Hour).Truncate(time.Millisecond)
	msg := &hermes.FailedMessage{
		ID:            uuidv7.New(),
		Method:        http.MethodPost,
		URL:           "https://api.example.com/pay",
		Host:          "api.example.com",
		Header:        http.Header{"Content-Type": {"text/plain"}},
		Body:          []byte("hello"),
		StatusCode:    503,
		Attempts:      1,
		FailureKind:   hermes.KindStatus,
		Retryable:     true,
		NextAttemptAt: &due,
	}
	for _, edit := range edits {
		edit(msg)
	}
	return msg
}

// to addresses a sample to a receiver.
func to(address string) func(*hermes.FailedMessage) {
	return func(m *hermes.FailedMessage) {
		m.URL = address
		if u, err := url.Parse(address); err == nil {
			m.Host = u.Host
		}
	}
}

// dueSince sets how long a sample has been due.
func dueSince(d time.Duration) func(*hermes.FailedMessage) {
	return func(m *hermes.FailedMessage) {
		m.NextAttemptAt = ptr(time.Now().UTC().Add(-d).Truncate(time.Millisecond))
	}
}

func ptr[T any](value T) *T { return &value }

// saved puts a sample into the table and returns the row.
func saved(t testing.TB, c *hermes.Client, edits ...func(*hermes.FailedMessage)) *hermes.FailedMessage {
	t.Helper()
	msg := sample(edits...)
	require.NoError(t, c.Save(context.Background(), msg))
	return row(t, c, msg.ID)
}

func row(t testing.TB, c *hermes.Client, id string) *hermes.FailedMessage {
	t.Helper()
	msg, err := c.Monitor().Get(context.Background(), id)
	require.NoError(t, err)
	return msg
}

// set writes a column behind Hermes' back.
func set(t testing.TB, db *gorm.DB, id, column string, value any) {
	t.Helper()
	result := db.Exec("UPDATE failed_message SET "+column+" = ? WHERE id = ?", value, id)
	require.NoError(t, result.Error)
	require.EqualValues(t, 1, result.RowsAffected)
}

func exec(t testing.TB, db *gorm.DB, sql string, args ...any) {
	t.Helper()
	require.NoError(t, db.Exec(sql, args...).Error)
}

// ago is a time as columns hold them.
func ago(d time.Duration) time.Time { return time.Now().UTC().Add(-d) }

// expire ends the claim of a row, as if its time had run out.
func expire(t testing.TB, db *gorm.DB, id string) {
	t.Helper()
	set(t, db, id, "claimed_until", ago(time.Second))
}

func gather(t testing.TB, c *hermes.Client, o hermes.GatherOptions) []*hermes.FailedMessage {
	t.Helper()
	msgs, err := c.GatherFailedMessagesForRetry(context.Background(), o)
	require.NoError(t, err)
	return msgs
}

func idsOf(msgs []*hermes.FailedMessage) []string {
	ids := make([]string, len(msgs))
	for i, msg := range msgs {
		ids[i] = msg.ID
	}
	return ids
}

// multiply copies a row n times, with IDs of their own.
func multiply(t testing.TB, db *gorm.DB, id string, n int) {
	t.Helper()
	model, err := schema.Parse(&hermes.FailedMessage{}, &sync.Map{}, schema.NamingStrategy{})
	require.NoError(t, err)
	values := strings.Join(model.DBNames, ", ")
	copies := strings.Replace(values, "id,", "'copy-' || CAST(1000000000 + i AS text),", 1)
	exec(t, db, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < "+
		"CAST(? AS integer)) INSERT INTO failed_message ("+values+") SELECT "+copies+" FROM failed_message, n WHERE id = ?", n, id)
}

// eachDSN runs a test on both databases, on the address of an empty one.
func eachDSN(t *testing.T, test func(t *testing.T, dsn string)) {
	t.Parallel()
	for name, newDSN := range map[string]func(testing.TB) string{"sqlite": testdb.SQLiteDSN, "postgres": testdb.PostgresDSN} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newDSN(t))
		})
	}
}

// withParam adds a parameter to a DSN, which is a URL of either kind.
func withParam(dsn, param string) string {
	if strings.Contains(dsn, "?") {
		return dsn + "&" + param
	}
	return dsn + "?" + param
}

// safeBuffer collects what many goroutines write.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
