package hermes_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

func TestEveryBadOptionIsRefusedByName(t *testing.T) {
	t.Parallel()
	db := testdb.SQLite(t)
	for name, opt := range map[string]hermes.Option{
		"WithMaxRetryAttempts":  hermes.WithMaxRetryAttempts(-1),
		"WithRetryInterval":     hermes.WithRetryInterval(-1),
		"WithBackoff":           hermes.WithBackoff(nil),
		"WithRequestTimeout":    hermes.WithRequestTimeout(0),
		"WithMaxRetryAfter":     hermes.WithMaxRetryAfter(-1),
		"WithMaxPostpone":       hermes.WithMaxPostpone(-1),
		"WithRedeliveryBackoff": hermes.WithRedeliveryBackoff(nil),
		"WithClaimTTL":          hermes.WithClaimTTL(15*time.Second - 1),
		"WithDurability":        hermes.WithDurability(7),
		"WithSaveTimeout":       hermes.WithSaveTimeout(0),
		"WithMaxBodyBytes":      hermes.WithMaxBodyBytes(-1),
		"WithMaxResponseBytes":  hermes.WithMaxResponseBytes(-1),
		"WithPolicy":            hermes.WithPolicy(nil),
		"WithHTTPClient":        hermes.WithHTTPClient(nil),
		"WithScheme":            hermes.WithScheme("sqs", nil),
		"WithIdempotencyHeader": hermes.WithIdempotencyHeader("Idempotency Key"),
		"WithSender":            hermes.WithSender("a\x00b"),
		"WithRequestSigner":     hermes.WithRequestSigner(nil),
		"WithSensitiveHeaders":  hermes.WithSensitiveHeaders("X-Ok", "not ok"),
		"WithLogger":            hermes.WithLogger(nil),
		"WithInstanceID":        hermes.WithInstanceID(""),
	} {
		_, err := hermes.New(db, opt)
		assert.ErrorIs(t, err, hermes.ErrInvalidOption, name)
		assert.ErrorContains(t, err, name)
	}
	_, err := hermes.New(db, nil)
	assert.ErrorIs(t, err, hermes.ErrInvalidOption)
	c, err := hermes.New(db)
	require.NoError(t, err)
	_, err = c.SendMessage(post(t, "http://receiver.example", "x"), nil)
	assert.ErrorIs(t, err, hermes.ErrInvalidMessage)
	for _, scheme := range []string{"", "http", "https", "SQS", "1sqs", "s qs", "s:"} {
		_, err := hermes.New(db, hermes.WithScheme(scheme, http.DefaultTransport))
		assert.ErrorIs(t, err, hermes.ErrInvalidOption, "%q", scheme)
	}
}

func TestNewReportsEveryBadValueAtOnce(t *testing.T) {
	t.Parallel()
	_, err := hermes.New(nil, hermes.WithMaxRetryAttempts(-1), hermes.WithLogger(nil), hermes.WithClaimTTL(time.Second))
	for _, what := range []string{"db: nil", "WithMaxRetryAttempts", "WithLogger", "WithClaimTTL"} {
		assert.ErrorContains(t, err, what)
	}
	_, err = hermes.NewMonitor(nil)
	assert.ErrorIs(t, err, hermes.ErrInvalidOption)
}

func TestTheLeastOfEachOptionIsTaken(t *testing.T) {
	t.Parallel()
	_, err := hermes.New(testdb.SQLite(t), hermes.WithMaxRetryAttempts(0), hermes.WithRetryInterval(0),
		hermes.WithRequestTimeout(1), hermes.WithMaxRetryAfter(0), hermes.WithMaxPostpone(0), hermes.WithSaveTimeout(1),
		hermes.WithMaxBodyBytes(0), hermes.WithMaxResponseBytes(0), hermes.WithClaimTTL(10*time.Second+1),
		hermes.WithIdempotencyHeader(""), hermes.WithSensitiveHeaders(), hermes.WithDurability(hermes.SaveAfterRetries), hermes.WithScheme("sqs+v1.0-x", http.DefaultTransport))
	assert.NoError(t, err)
	_, err = hermes.New(testdb.SQLite(t), hermes.WithClaimTTL(15*time.Second))
	assert.NoError(t, err, "five seconds' timeout and ten")
}

func TestTheLastOptionWins(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		r := newReceiver(t, statuses(503))
		resp, err := c.SendMessage(post(t, r.URL, "x"))
		require.NoError(t, err)
		assert.Equal(t, 3, resp.Attempts)
		assert.Equal(t, resp.FailedMessageID, r.received()[0].Header.Get("X-Second"))
		assert.Empty(t, r.received()[0].Header.Get("X-First"))
	}, hermes.WithMaxRetryAttempts(9), hermes.WithMaxRetryAttempts(2), hermes.WithIdempotencyHeader("X-First"),
		hermes.WithIdempotencyHeader("X-Second"), hermes.WithBackoff(hermes.ConstantBackoff(time.Hour)),
		hermes.WithRetryInterval(time.Millisecond))
}

func TestBodyLimit(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		r := newReceiver(t, statuses(200))
		_, err := c.SendMessage(post(t, r.URL, "12345"))
		require.NoError(t, err)
		_, err = c.SendMessage(post(t, r.URL, "123456"))
		assert.ErrorIs(t, err, hermes.ErrBodyTooLarge)

		unknownLength, err := http.NewRequest("POST", r.URL, struct{ *strings.Reader }{strings.NewReader("123456")})
		require.NoError(t, err)
		_, err = c.SendMessage(unknownLength)
		assert.ErrorIs(t, err, hermes.ErrBodyTooLarge)
		assert.Len(t, r.received(), 1)
		assert.Zero(t, count(t, c, hermes.Filter{}))
	}, hermes.WithMaxBodyBytes(5))
}

func TestDefaultBodyLimitIs10MiB(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		r := newReceiver(t, statuses(200))
		_, err := c.SendMessage(post(t, r.URL, strings.Repeat("x", 10<<20)))
		require.NoError(t, err)
		_, err = c.SendMessage(post(t, r.URL, strings.Repeat("x", 10<<20+1)))
		assert.ErrorIs(t, err, hermes.ErrBodyTooLarge)
	})
}

func TestDefaultResponseLimitIs1MiB(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		r := newReceiver(t, func(n int, w http.ResponseWriter, _ *http.Request) {
			w.Write(make([]byte, 1<<20+n-1))
		})
		resp, err := c.SendMessage(post(t, r.URL, "x"))
		require.NoError(t, err)
		assert.Len(t, resp.Body, 1<<20)
		assert.False(t, resp.Truncated)
		resp, err = c.SendMessage(post(t, r.URL, "x"))
		require.NoError(t, err)
		assert.Len(t, resp.Body, 1<<20)
		assert.True(t, resp.Truncated)
	})
}

func TestSchemeIsSentByItsRoundTripper(t *testing.T) {
	s := &script{answer: always(202)}
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		resp, err := c.SendMessage(post(t, "queue:orders?fifo=1", "x"))
		require.NoError(t, err)
		assert.Equal(t, 202, resp.StatusCode)
		_, err = c.SendMessage(post(t, "other:orders", "x"))
		assert.ErrorIs(t, err, hermes.ErrInvalidMessage)
	}, hermes.WithScheme("queue", s))
}

func TestASchemesFailureIsRetriedFromTheTable(t *testing.T) {
	var urls []string
	rt := &script{answer: func(n int, req *http.Request) (*http.Response, error) {
		urls = append(urls, req.URL.String()+" "+req.Header.Get("Idempotency-Key"))
		if n == 1 {
			return answerOf(503), nil
		}
		return answerOf(200), nil
	}}
	t.Parallel()
	c := newClient(t, testdb.SQLite(t), hermes.WithScheme("queue", rt), hermes.WithMaxRetryAttempts(0))
	del, err := http.NewRequest("DELETE", "queue:orders?id=1", nil)
	require.NoError(t, err)
	_, err = c.SendMessage(del)
	require.NoError(t, err)
	msg := only(t, c)
	resp, err := c.RetryMessage(context.Background(), msg)
	require.NoError(t, err)
	assert.True(t, resp.Succeeded())
	want := "queue:orders?id=1 " + msg.ID
	assert.Equal(t, []string{want, want}, urls, "a RoundTripper of one's own sees the key, body or not")
}

func TestIdempotencyKeyComesFromOptionThenHeaderThenID(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		r := newReceiver(t, statuses(404))
		send := func(header string, opts ...hermes.SendOption) (sent []string, msg *hermes.FailedMessage) {
			req := post(t, r.URL, "x")
			if header != "" {
				req.Header[header] = []string{"from-header"}
			}
			resp, err := c.SendMessage(req, opts...)
			require.NoError(t, err)
			msg, err = c.Monitor().Get(context.Background(), resp.FailedMessageID)
			require.NoError(t, err)
			all := r.received()
			return all[len(all)-1].Header.Values("Idempotency-Key"), msg
		}
		sent, msg := send("")
		assert.Equal(t, []string{msg.ID}, sent)
		assert.Equal(t, msg.ID, msg.IdempotencyKey)
		for _, name := range []string{"Idempotency-Key", "idempotency-key"} {
			sent, msg = send(name)
			assert.Equal(t, []string{"from-header"}, sent, name)
			assert.Equal(t, "from-header", msg.IdempotencyKey)
			sent, msg = send(name, hermes.IdempotencyKey("from-option"))
			assert.Equal(t, []string{"from-option"}, sent, name)
			assert.Equal(t, "from-option", msg.IdempotencyKey)
		}
		_, err := c.SendMessage(post(t, r.URL, "x"), hermes.IdempotencyKey("two words"))
		assert.ErrorIs(t, err, hermes.ErrInvalidMessage)
	})
}

func TestTheKeyKeepsItsHeaderHoweverTheRetryingClientIsConfigured(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		r := newReceiver(t, statuses(503, 200))
		_, err := c.SendMessage(post(t, r.URL, "x"))
		require.NoError(t, err)
		job := newClient(t, db)
		resp, err := job.RetryMessage(context.Background(), only(t, c))
		require.NoError(t, err)
		require.True(t, resp.Succeeded())
		seen := r.received()
		assert.Equal(t, seen[0].Header.Values("X-Request-Id"), seen[1].Header.Values("X-Request-Id"))
		assert.NotContains(t, seen[1].Header, "Idempotency-Key")
	}, hermes.WithIdempotencyHeader("X-Request-Id"), hermes.WithMaxRetryAttempts(0))
}

func TestNoIdempotencyHeader(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		r := newReceiver(t, statuses(404))
		_, err := c.SendMessage(post(t, r.URL, "x"))
		require.NoError(t, err)
		assert.NotContains(t, r.received()[0].Header, "Idempotency-Key")
		assert.NotEmpty(t, only(t, c).IdempotencyKey)
	}, hermes.WithIdempotencyHeader(""))
}

// lockedBuffer is what several goroutines may write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestSilentByDefault(t *testing.T) {
	var logged lockedBuffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
	t.Cleanup(func() { slog.SetDefault(before) })
	testdb.Each(t, func(t *testing.T, db *gorm.DB) {
		c := newClient(t, db)
		r := newReceiver(t, statuses(503))
		_, err := c.SendMessage(post(t, r.URL, "x"))
		require.NoError(t, err)
		assert.NotContains(t, logged.String(), "hermes: ")
	})
}
