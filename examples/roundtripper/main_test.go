package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/resend/resend-go/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

var mail = &resend.SendEmailRequest{From: "a@example.com", To: []string{"b@example.com"}, Subject: "Welcome", Text: "Hello"}

// service is Resend, or is not.
type service struct {
	*httptest.Server
	mu       sync.Mutex
	status   int
	requests []string
}

func startService(t *testing.T) *service {
	s := &service{status: http.StatusOK}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.requests = append(s.requests, fmt.Sprintf("%d %s %s %s %s", s.status, req.Method, req.URL.Path,
			req.Header.Get("Idempotency-Key"), req.Header.Get("Authorization")))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(s.status)
		fmt.Fprint(w, `{"id": "4711", "message": "as the status says"}`)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *service) set(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

func mailerTo(t *testing.T, db *gorm.DB, base string) *mailer {
	m, err := newMailer(db, "secret")
	require.NoError(t, err)
	m.sdk.BaseURL, err = url.Parse(base)
	require.NoError(t, err)
	require.NoError(t, m.client.Migrate(t.Context()))
	return m
}

func TestACallThatFailsIsDeliveredLater(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db *gorm.DB) {
		s := startService(t)
		m := mailerTo(t, db, s.URL+"/")

		id, err := m.send(t.Context(), "welcome/1", mail)
		require.NoError(t, err)
		assert.Empty(t, id, "sent")

		s.set(http.StatusTooManyRequests)
		id, err = m.send(t.Context(), "welcome/2", mail)
		require.NoError(t, err)
		row, err := m.client.Monitor().Get(t.Context(), id)
		require.NoError(t, err)
		assert.Equal(t, "mail", row.Sender)
		assert.Equal(t, "welcome/2", row.IdempotencyKey)
		assert.Equal(t, hermes.StateWaiting, row.State())
		assert.NotContains(t, row.Header.Get("Authorization"), "secret")

		s.set(http.StatusOK)
		_, err = m.client.Reschedule(t.Context(), hermes.Filter{IDs: []string{id}}, time.Time{}) // rather than wait a minute
		require.NoError(t, err)
		summary, err := m.client.RetryAll(t.Context(), hermes.RetryOptions{})
		require.NoError(t, err)
		assert.EqualValues(t, 1, summary.Delivered)
		_, err = m.client.Monitor().Get(t.Context(), id)
		assert.ErrorIs(t, err, hermes.ErrNotFound)
		assert.Equal(t, []string{
			"200 POST /emails welcome/1 Bearer secret",
			"429 POST /emails welcome/2 Bearer secret",
			"429 POST /emails welcome/2 Bearer secret",
			"200 POST /emails welcome/2 Bearer secret",
		}, s.requests)
	})
}

func TestAServiceThatIsDown(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db *gorm.DB) {
		s := startService(t)
		s.Close()
		m := mailerTo(t, db, s.URL+"/")
		id, err := m.send(t.Context(), "welcome/1", mail)
		require.NoError(t, err)
		assert.NotEmpty(t, id)

		require.NoError(t, m.client.Shutdown(t.Context()))
		_, err = m.send(t.Context(), "welcome/2", mail)
		assert.ErrorIs(t, err, hermes.ErrShutdown, "neither sent nor saved")
	})
}

func TestPassOfTheProgram(t *testing.T) {
	t.Parallel()
	s := startService(t)
	dsn := testdb.SQLiteDSN(t)
	s.set(http.StatusServiceUnavailable)
	m := mailerTo(t, testdb.Open(t, dsn), s.URL+"/")
	id, err := m.send(t.Context(), "welcome/1", mail)
	require.NoError(t, err)
	_, err = m.client.Reschedule(t.Context(), hermes.Filter{IDs: []string{id}}, time.Time{})
	require.NoError(t, err)

	s.set(http.StatusOK)
	require.NoError(t, run(t.Context(), dsn, "secret", "", true))

	left, err := m.client.Monitor().Count(t.Context(), hermes.Filter{})
	require.NoError(t, err)
	assert.Zero(t, left)
}
