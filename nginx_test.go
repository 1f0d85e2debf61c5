package hermes_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testnginx"
)

// TestAgainstNginx runs the status policy and the redirects against a server that nobody here wrote.
func TestAgainstNginx(t *testing.T) {
	type expected struct {
		status   int
		outcome  hermes.Outcome
		kind     hermes.FailureKind
		attempts int
		log      string // "METHOD" is the message's
	}
	delivered := func(log string) expected { return expected{200, hermes.Delivered, "", 1, log} }
	invalid := func(status int, kind hermes.FailureKind, log string) expected {
		return expected{status, hermes.Invalid, kind, 1, log}
	}
	twice := func(status int, log string) expected {
		return expected{status, hermes.Retryable, hermes.KindStatus, 2, log + ", " + log}
	}
	broken := func(kind hermes.FailureKind, log string) expected {
		return expected{0, hermes.Retryable, kind, 2, log + ", " + log}
	}
	for path, test := range map[string]struct{ get, post expected }{
		"/200":  {get: delivered("GET /200 200"), post: delivered("POST /200 200")},
		"/204":  {get: expected{204, hermes.Delivered, "", 1, "GET /204 204"}, post: expected{204, hermes.Delivered, "", 1, "POST /204 204"}},
		"/301":  {get: delivered("GET /301 301, GET /200 200"), post: invalid(301, hermes.KindRedirect, "POST /301 301")},
		"/302":  {get: delivered("GET /302 302, GET /200 200"), post: invalid(302, hermes.KindRedirect, "POST /302 302")},
		"/303":  {get: delivered("GET /303 303, GET /200 200"), post: delivered("POST /303 303, GET /200 200")},
		"/307":  {get: delivered("GET /307 307, GET /200 200"), post: delivered("POST /307 307, POST /200 200")},
		"/308":  {get: delivered("GET /308 308, GET /200 200"), post: delivered("POST /308 308, POST /200 200")},
		"/loop": {get: invalid(307, hermes.KindRedirect, "GET /loop 307"), post: invalid(307, hermes.KindRedirect, "POST /loop 307")},
		"/303-404": {
			get:  invalid(404, hermes.KindStatus, "GET /303-404 303, GET /404 404"),
			post: invalid(303, hermes.KindRedirect, "POST /303-404 303, GET /404 404"),
		},
		"/to-https": {
			get:  expected{0, hermes.Retryable, hermes.KindConnect, 2, "GET /to-https 307, GET /to-https 307"},
			post: expected{0, hermes.Retryable, hermes.KindConnect, 2, "POST /to-https 307, POST /to-https 307"},
		},
		"/401":           {get: invalid(401, hermes.KindStatus, "GET /401 401"), post: invalid(401, hermes.KindStatus, "POST /401 401")},
		"/404":           {get: invalid(404, hermes.KindStatus, "GET /404 404"), post: invalid(404, hermes.KindStatus, "POST /404 404")},
		"/429":           {get: invalid(429, hermes.KindStatus, "GET /429 429"), post: invalid(429, hermes.KindStatus, "POST /429 429")},
		"/anything-else": {get: invalid(404, hermes.KindStatus, "GET /anything-else 404"), post: invalid(404, hermes.KindStatus, "POST /anything-else 404")},
		"/502":           {get: twice(502, "GET /502 502"), post: twice(502, "POST /502 502")},
		"/503":           {get: twice(503, "GET /503 503"), post: twice(503, "POST /503 503")},
		"/444":           {get: broken(hermes.KindConnection, "GET /444 444"), post: broken(hermes.KindConnection, "POST /444 444")},
		"/slow":          {get: broken(hermes.KindTimeout, "GET /slow 499"), post: broken(hermes.KindTimeout, "POST /slow 499")},
		"/echo-method":   {get: delivered("GET /echo-method 200"), post: delivered("POST /echo-method 200")},
	} {
		for method, want := range map[string]expected{"GET": test.get, "POST": test.post} {
			t.Run(method+" "+path, func(t *testing.T) {
				each(t, func(t *testing.T, _ *hermes.Client, db *gorm.DB) {
					server := testnginx.Start(t)
					client, _ := ownClient(t)
					opts := []hermes.Option{hermes.WithHTTPClient(client), hermes.WithMaxRetryAttempts(1)}
					if path == "/slow" {
						opts = append(opts, hermes.WithRequestTimeout(2*time.Second))
					}
					c := newClient(t, db, opts...)
					resp, err := c.SendMessage(request(t, method, server.URL+path, `{"a":1}`))
					require.NoError(t, err)
					client.CloseIdleConnections()
					assert.Equal(t, want.status, resp.StatusCode)
					assert.Equal(t, want.outcome, resp.Outcome)
					assert.Equal(t, want.attempts, resp.Attempts)
					if path != "/slow" { // nginx notes in its own time who went away
						assert.Equal(t, want.log, strings.Join(server.Requests(t), ", "))
					}
					if path == "/echo-method" {
						assert.Equal(t, method, string(resp.Body))
					}
					if want.outcome == hermes.Delivered {
						assert.Zero(t, count(t, c, hermes.Filter{}))
						return
					}
					row := only(t, c)
					assert.Equal(t, want.kind, row.FailureKind)
					assert.Equal(t, want.status, row.StatusCode)
					assert.Equal(t, want.outcome != hermes.Invalid, row.Retryable)
					assert.Equal(t, method, row.Method)
					assert.Len(t, row.AttemptLog, want.attempts)
				})
			})
		}
	}
}
