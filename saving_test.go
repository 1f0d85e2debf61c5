package hermes_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

func TestEveryColumnOfASavedRow(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Secret-Answer", "not to be stored")
			w.WriteHeader(503)
		})
		req := post(t, r.URL+"/pay?a=b", "hello")
		req.Host = "Virtual.example.com"
		req.Header.Set("Authorization", "Bearer token")
		notAfter := time.Now().Add(48 * time.Hour).In(time.FixedZone("far", 5*3600))
		before := time.Now().Add(-10 * time.Millisecond) // SQLite's clock has milliseconds
		resp, err := c.SendMessage(req, hermes.Metadata(map[string]string{"tenant": "acme", "käse": `"'\`}),
			hermes.IdempotencyKey("order-1"), hermes.Schedule(time.Hour, 2*time.Hour), hermes.NotAfter(notAfter))
		require.NoError(t, err)
		after := time.Now().Add(10 * time.Millisecond)

		m := only(t, c)
		assert.Equal(t, resp.FailedMessageID, m.ID)
		assert.True(t, m.CreatedAt.After(before) && m.CreatedAt.Before(after), m.CreatedAt)
		assert.Equal(t, m.CreatedAt, m.UpdatedAt)
		assert.Equal(t, time.UTC, m.CreatedAt.Location())
		assert.Equal(t, "billing", m.Sender)
		assert.Equal(t, http.MethodPost, m.Method)
		assert.Equal(t, r.URL+"/pay?a=b", m.URL)
		assert.Equal(t, strings.TrimPrefix(r.URL, "http://"), m.Host)
		assert.Equal(t, "Virtual.example.com", m.HostOverride)
		assert.Equal(t, http.Header{"Authorization": {"Bearer token"}, "Idempotency-Key": {"order-1"}}, m.Header)
		assert.Equal(t, "hello", string(m.Body))
		assert.Equal(t, map[string]string{"tenant": "acme", "käse": `"'\`}, m.Metadata)
		assert.Equal(t, "order-1", m.IdempotencyKey)
		assert.Equal(t, 503, m.StatusCode)
		assert.Equal(t, 3, m.Attempts)
		assert.Zero(t, m.Retries)
		assert.Equal(t, hermes.KindStatus, m.FailureKind)
		assert.Empty(t, m.LastError)
		assert.True(t, m.Retryable)
		assert.WithinDuration(t, m.CreatedAt.Add(time.Hour), *m.NextAttemptAt, 2*time.Millisecond)
		assert.Equal(t, []time.Duration{time.Hour, 2 * time.Hour}, m.Schedule)
		assert.WithinDuration(t, notAfter, *m.NotAfter, time.Microsecond)
		assert.Zero(t, m.Claims)
		assert.Empty(t, m.ClaimToken)
		assert.Nil(t, m.ClaimedUntil)
		assert.Empty(t, m.ClaimedBy)
		require.Len(t, m.AttemptLog, 3)
		for _, a := range m.AttemptLog {
			assert.True(t, a.At.After(before) && a.At.Before(after), a.At)
			assert.Positive(t, a.Duration)
			assert.Equal(t, hermes.AttemptRecord{At: a.At, Duration: a.Duration, StatusCode: 503, Kind: hermes.KindStatus,
				Instance: "blue-1"}, a)
		}
		assert.Equal(t, hermes.StateWaiting, m.State())

		var columns map[string]any
		require.NoError(t, db.Raw("SELECT * FROM failed_message").Scan(&columns).Error)
		assert.Len(t, columns, 26)
		for name, value := range columns {
			assert.NotContains(t, fmt.Sprintf("%s", value), "not to be stored", name)
		}
	}, hermes.WithMaxRetryAttempts(2), hermes.WithSender("billing"), hermes.WithInstanceID("blue-1"))
}

func TestAnInvalidMessageAndOneWithoutAnAnswerAreSavedAsSuch(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		r := newReceiver(t, statuses(422))
		resp, err := c.SendMessage(post(t, r.URL, ""))
		require.NoError(t, err)
		m := row(t, c, resp.FailedMessageID)
		assert.Equal(t, hermes.StateInvalid, m.State())
		assert.Equal(t, 1, m.Attempts)
		assert.Nil(t, m.NextAttemptAt)
		assert.Equal(t, []byte{}, m.Body)
		assert.Empty(t, m.HostOverride)

		r.Close()
		resp, err = c.SendMessage(post(t, r.URL, ""))
		require.NoError(t, err)
		m = row(t, c, resp.FailedMessageID)
		assert.Equal(t, hermes.StateDue, m.State())
		assert.Equal(t, hermes.KindConnect, m.FailureKind)
		assert.Zero(t, m.StatusCode)
		assert.Equal(t, 6, m.Attempts)
		assert.Contains(t, m.LastError, "refused")
	})
}

// TestStatusThatIsNoNumberOfHTTPIsSaved: a RoundTripper may answer with any int, the column holds 32 bits.
func TestStatusThatIsNoNumberOfHTTPIsSaved(t *testing.T) {
	for _, status := range []int{1 << 40, -1 << 40, -1, 1000} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
				resp, err := c.SendMessage(post(t, "odd://host/", "x"))
				require.NoError(t, err)
				assert.Equal(t, status, resp.StatusCode)
				assert.Equal(t, 1, row(t, c, resp.FailedMessageID).Attempts)
			}, hermes.WithMaxRetryAttempts(0), hermes.WithScheme("odd", oddStatus(status)))
		})
	}
}

// oddStatus is a RoundTripper that answers with a status.
type oddStatus int

func (a oddStatus) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: int(a), Header: http.Header{}, Body: http.NoBody, Request: req}, nil
}

func TestBytesComeBackAsTheyWere(t *testing.T) {
	everyByte := make([]byte, 256)
	for i := range everyByte {
		everyByte[i] = byte(i)
	}
	bodies := map[string][]byte{
		"every byte":           everyByte,
		"NULs":                 make([]byte, 1000),
		"0xFF":                 bytes.Repeat([]byte{0xff}, 1000),
		"invalid UTF-8":        []byte("caf\xe9 \xc3\x28 \xf0\x9f"),
		"looks like an escape": []byte(`\x4142 \000 ''; ? $1 @name`),
		"ten megabytes":        bytes.Repeat(everyByte, 10<<20/256),
	}
	for name, body := range bodies {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
				ctx := context.Background()
				r := newReceiver(t, statuses(400, 200))
				req := post(t, r.URL+"/a%2Fb/%FF%00?q=%00%ff&q=2&empty&=", string(body))
				req.Header["X-Repeated"] = []string{"one", "two", "", "one"}
				req.Header["X-Obs-Text"] = []string{"caf\xe9 \xff", "\ttab\t"}
				req.Header["x-lower-case"] = []string{"kept"}
				req.Header["User-Agent"] = nil // keeps net/http from adding its own
				resp, err := c.SendMessage(req)
				require.NoError(t, err)
				m := row(t, c, resp.FailedMessageID)
				assert.True(t, bytes.Equal(body, m.Body))
				assert.Equal(t, []string{"kept"}, m.Header["x-lower-case"])

				_, err = c.Reschedule(ctx, hermes.Everything(), time.Time{})
				require.NoError(t, err)
				resp, err = c.RetryMessage(ctx, m)
				require.NoError(t, err)
				require.True(t, resp.Succeeded())
				seen := r.received()
				require.Len(t, seen, 2)
				assert.True(t, string(body) == seen[0].Body && string(body) == seen[1].Body)
				seen[0].Body, seen[1].Body = "", ""
				assert.Equal(t, seen[0], seen[1])
				assert.NotContains(t, seen[0].Header, "User-Agent")
			})
		})
	}
}

func TestSaveOnFailureFalseIsASendErrorAndNoRow(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		r := newReceiver(t, statuses(500))
		resp, err := c.SendMessage(post(t, r.URL, "x"), hermes.SaveOnFailure(false))
		var failure *hermes.SendError
		require.ErrorAs(t, err, &failure)
		assert.Equal(t, 500, failure.StatusCode)
		assert.Equal(t, 3, failure.Attempts)
		assert.Empty(t, failure.FailedMessageID)
		assert.NotErrorIs(t, err, hermes.ErrNotSaved)
		assert.Equal(t, 500, resp.StatusCode)
		assert.Empty(t, resp.FailedMessageID)
		assert.Zero(t, count(t, c, hermes.Filter{}))

		resp, err = c.SendMessage(post(t, newReceiver(t, statuses(200)).URL, "x"), hermes.SaveOnFailure(false))
		require.NoError(t, err)
		assert.True(t, resp.Succeeded())
	}, hermes.WithMaxRetryAttempts(2))
}

func TestSaveValidates(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		ctx := context.Background()
		for name, edit := range map[string]func(*hermes.FailedMessage){
			"no ID":                 func(m *hermes.FailedMessage) { m.ID = "" },
			"ID with a space":       func(m *hermes.FailedMessage) { m.ID = "a b" },
			"ID with a NUL":         func(m *hermes.FailedMessage) { m.ID = "a\x00" },
			"method":                func(m *hermes.FailedMessage) { m.Method = "GE T" },
			"URL":                   func(m *hermes.FailedMessage) { m.URL = "http://[::1" },
			"no URL":                func(m *hermes.FailedMessage) { m.URL = "" },
			"URL without scheme":    func(m *hermes.FailedMessage) { m.URL = "/pay" },
			"URL without host":      func(m *hermes.FailedMessage) { m.URL = "http:///pay" },
			"URL with a NUL":        func(m *hermes.FailedMessage) { m.URL = "http://a/\x00" },
			"URL not UTF-8":         func(m *hermes.FailedMessage) { m.URL = "http://a/\xff" },
			"sender":                func(m *hermes.FailedMessage) { m.Sender = "\xff" },
			"host":                  func(m *hermes.FailedMessage) { m.Host = "\x00" },
			"host override":         func(m *hermes.FailedMessage) { m.HostOverride = "\x00" },
			"key":                   func(m *hermes.FailedMessage) { m.IdempotencyKey = "\x00" },
			"kind":                  func(m *hermes.FailedMessage) { m.FailureKind = "\x00" },
			"last error":            func(m *hermes.FailedMessage) { m.LastError = "\xff" },
			"metadata":              func(m *hermes.FailedMessage) { m.Metadata = map[string]string{"a": "\x00"} },
			"metadata key":          func(m *hermes.FailedMessage) { m.Metadata = map[string]string{"\xff": "a"} },
			"schedule":              func(m *hermes.FailedMessage) { m.Schedule = []time.Duration{-1} },
			"header name":           func(m *hermes.FailedMessage) { m.Header = http.Header{"A B": {"x"}} },
			"header value":          func(m *hermes.FailedMessage) { m.Header = http.Header{"A": {"x\r\nB: y"}} },
			"header value, hidden":  func(m *hermes.FailedMessage) { m.Header = http.Header{"A": {"x\r\nB: y"}, "B": {"z"}} },
			"header value, NUL":     func(m *hermes.FailedMessage) { m.Header = http.Header{"A": {"\x00"}} },
			"status of 64 bits":     func(m *hermes.FailedMessage) { m.StatusCode = 1 << 40 },
			"attempts of 64 bits":   func(m *hermes.FailedMessage) { m.Attempts = 1 << 40 },
			"retries of 64 bits":    func(m *hermes.FailedMessage) { m.Retries = 1 << 40 },
			"negative attempts":     func(m *hermes.FailedMessage) { m.Attempts = -1 },
			"attempt beyond time":   func(m *hermes.FailedMessage) { m.AttemptLog = []hermes.AttemptRecord{{At: beyond()}} },
			"created beyond time":   func(m *hermes.FailedMessage) { m.CreatedAt = beyond() },
			"updated beyond time":   func(m *hermes.FailedMessage) { m.UpdatedAt = beyond() },
			"due beyond time":       func(m *hermes.FailedMessage) { m.NextAttemptAt = ptr(beyond()) },
			"not after beyond time": func(m *hermes.FailedMessage) { m.NotAfter = ptr(beyond()) },
		} {
			assert.ErrorIs(t, c.Save(ctx, sample(edit)), hermes.ErrInvalidMessage, name)
		}
		assert.ErrorIs(t, c.Save(ctx, nil), hermes.ErrInvalidMessage)
		assert.Zero(t, count(t, c, hermes.Filter{}))
		canceled, cancel := context.WithCancel(ctx)
		cancel()
		assert.ErrorIs(t, c.Save(canceled, sample()), context.Canceled)
		require.NoError(t, c.Save(ctx, sample(func(m *hermes.FailedMessage) { m.Header, m.Body, m.NotAfter = nil, nil, ptr(ago(time.Hour)) })))
	})
}

// beyond is a time that the text of a time has no room for.
func beyond() time.Time { return time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }

// TestNotAfterBeyondTheYear9999: SQLite's texts would have it before today, PostgreSQL takes no year past 294276.
func TestNotAfterBeyondTheYear9999(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		r := newReceiver(t, statuses(400))
		for _, at := range []time.Time{beyond(), time.Unix(1<<55, 0)} {
			_, err := c.SendMessage(post(t, r.URL, ""), hermes.NotAfter(at))
			assert.ErrorIs(t, err, hermes.ErrInvalidMessage)
		}
		assert.Empty(t, r.received())
	})
}

func TestSaveKeepsWhatTheMessageSaysAndGivesNoClaim(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		at := time.Date(2020, 2, 29, 12, 0, 0, 123456000, time.UTC)
		want := sample(func(m *hermes.FailedMessage) {
			m.Sender, m.Host, m.HostOverride, m.IdempotencyKey, m.LastError = "s", "h", "o", "k", "e"
			m.CreatedAt, m.UpdatedAt, m.NotAfter = at, at.Add(time.Hour), ptr(at.Add(2*time.Hour))
			m.Metadata = map[string]string{"": "", "a": "b"}
			m.Schedule = []time.Duration{0, 1, time.Hour}
			m.Retries = 7
			m.AttemptLog = []hermes.AttemptRecord{{At: at, Duration: 5, StatusCode: 1, Kind: "x", Hops: 2, Instance: "i"}}
			m.Claims, m.ClaimToken, m.ClaimedBy, m.ClaimedUntil = 5, "t", "b", ptr(time.Now().Add(time.Hour))
		})
		require.NoError(t, c.Save(context.Background(), want))
		got := row(t, c, want.ID)
		want.Claims, want.ClaimToken, want.ClaimedBy, want.ClaimedUntil = 0, "", "", nil
		assert.Equal(t, want, got)

		changed := *want
		changed.Body = []byte("another")
		require.NoError(t, c.Save(context.Background(), &changed))
		assert.Equal(t, want, row(t, c, want.ID))
	})
}
