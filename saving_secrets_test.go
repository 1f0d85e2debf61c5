package hermes_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

// canaries stand where a message has its secrets.
var canaries = map[string]string{
	"Authorization": "CanaryAuthorization==",
	"Cookie":        "CanaryCookie",
	"custom header": "CanaryCustomHeader",
	"signature":     "CanarySignature",
	"user name":     "CanaryUser",
	"password":      "Canary:Pass/word",
	"query":         "Canary Query&1",
	"body":          "CanaryBody\x01\"quoted\"",
}

// leaks returns which canaries stand in a text, as they are or in a form that they take on the way.
func leaks(text string) (names []string) {
	lower := strings.ToLower(text)
	for name, secret := range canaries {
		for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret), fmt.Sprintf("%q", secret),
			base64.StdEncoding.EncodeToString([]byte(secret)), fmt.Sprint([]byte(secret)), fmt.Sprintf("%x", secret),
			url.UserPassword("", secret).String()[1:]} {
			if strings.Contains(lower, strings.ToLower(strings.Trim(form, `"[]`))) {
				names = append(names, name)
				break
			}
		}
	}
	return names
}

// secretRequest has a canary wherever a caller can put one.
func secretRequest(t *testing.T, target string) *http.Request {
	t.Helper()
	u, err := url.Parse(target)
	require.NoError(t, err)
	u.User = url.UserPassword(canaries["user name"], canaries["password"])
	u.RawQuery = url.Values{"token": {canaries["query"]}}.Encode()
	req := post(t, u.String(), canaries["body"])
	req.Header.Set("Authorization", "Bearer "+canaries["Authorization"])
	req.Header.Set("Cookie", "session="+canaries["Cookie"])
	req.Header.Set("X-Custom", canaries["custom header"])
	return req
}

func sign(req *http.Request) error {
	req.Header.Set("X-Signature", canaries["signature"])
	return nil
}

// talkative fails with an error, or panics, that says all it knows of the request.
type talkative struct{ panics bool }

func (rt talkative) RoundTrip(req *http.Request) (*http.Response, error) {
	body, _ := io.ReadAll(req.Body)
	text := fmt.Sprintf("%s %s %v %q %s %s", req.Method, req.URL, req.Header, req.Header, body, req.URL.RawQuery)
	if rt.panics {
		panic(text)
	}
	return nil, errors.New(text)
}

// witness collects all that people could get to see.
type witness struct {
	t    *testing.T
	seen safeBuffer
}

func (w *witness) note(what string, values ...any) {
	for _, value := range values {
		fmt.Fprintf(&w.seen, "%s: %v\n%s: %+v\n%s: %s\n", what, value, what, value, what, value)
		if err, ok := value.(error); ok {
			fmt.Fprintf(&w.seen, "%s: %s\n", what, err.Error())
		}
	}
}

func (w *witness) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(&w.seen, &slog.HandlerOptions{Level: level, AddSource: true}))
}

func (w *witness) assertClean() {
	w.t.Helper()
	for line := range strings.SplitSeq(w.seen.String(), "\n") {
		assert.Empty(w.t, leaks(line), line)
	}
}

func TestTheSearchForCanariesFindsAPlantedOne(t *testing.T) {
	t.Parallel()
	for name, secret := range canaries {
		w := &witness{t: t}
		w.note("planted", fmt.Errorf("in an error: %s", secret))
		assert.Contains(t, leaks(w.seen.String()), name)
		w = &witness{t: t}
		w.logger(slog.LevelInfo).Info("planted", "secret", secret)
		assert.Contains(t, leaks(w.seen.String()), name)
		w = &witness{t: t}
		w.note("planted", struct{ Body []byte }{[]byte(secret)})
		assert.Contains(t, leaks(w.seen.String()), name)
	}
	assert.Empty(t, leaks("nothing"))
}

func TestNoSecretIsShown(t *testing.T) {
	refused := newReceiver(t, statuses(200))
	refused.Close()
	failures := map[string]func(t *testing.T) (target string, opts []hermes.Option){
		"status":  func(t *testing.T) (string, []hermes.Option) { return newReceiver(t, statuses(500)).URL, nil },
		"invalid": func(t *testing.T) (string, []hermes.Option) { return newReceiver(t, statuses(400)).URL, nil },
		"refused": func(*testing.T) (string, []hermes.Option) { return refused.URL, nil },
		"no such host": func(*testing.T) (string, []hermes.Option) {
			return "http://no-such-host.invalid/", nil
		},
		"timeout": func(t *testing.T) (string, []hermes.Option) {
			r := newReceiver(t, func(_ int, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
			return r.URL, []hermes.Option{hermes.WithRequestTimeout(50 * time.Millisecond)}
		},
		"redirect": func(t *testing.T) (string, []hermes.Option) {
			return newReceiver(t, func(_ int, w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "ftp://"+canaries["user name"]+":CanaryBody@host/?"+r.URL.RawQuery)
				w.WriteHeader(307)
			}).URL, nil
		},
		"RoundTripper's error": func(*testing.T) (string, []hermes.Option) {
			return "odd://host/", []hermes.Option{hermes.WithScheme("odd", talkative{})}
		},
		"RoundTripper's panic": func(*testing.T) (string, []hermes.Option) {
			return "odd://host/", []hermes.Option{hermes.WithScheme("odd", talkative{panics: true})}
		},
		"policy's panic": func(t *testing.T) (string, []hermes.Option) {
			return newReceiver(t, statuses(500)).URL, []hermes.Option{hermes.WithPolicy(func(a hermes.Attempt) hermes.Outcome {
				panic(fmt.Sprint(a.Request.URL, a.Request.Header))
			})}
		},
	}
	for name, failure := range failures {
		t.Run(name, func(t *testing.T) {
			eachDSN(t, func(t *testing.T, dsn string) {
				w := &witness{t: t}
				target, opts := failure(t)
				w.scenario(dsn, target, append(opts, hermes.WithRequestSigner(sign), hermes.WithMaxRetryAttempts(1), hermes.WithRetryInterval(0),
					hermes.WithSaveTimeout(300*time.Millisecond), hermes.WithLogger(w.logger(slog.LevelDebug-100))))
				w.assertClean()
				assert.Contains(t, w.seen.String(), "redacted")
			})
		})
	}
}

// scenario sends a message that fails, to a store that works and to one that does not, and retries it.
func (w *witness) scenario(dsn, target string, opts []hermes.Option) {
	t, ctx := w.t, context.Background()
	db := testdb.Open(t, dsn)
	c := newClient(t, db, opts...)
	req := secretRequest(t, target)
	resp, err := c.SendMessage(req)
	require.NoError(t, err)
	w.note("response", resp, resp.Err())
	w.logger(slog.LevelDebug).Debug("response", "response", resp)
	fmt.Fprintf(&w.seen, "response: %#v\n", resp)
	w.row(c, resp.FailedMessageID)

	_, err = c.Reschedule(ctx, hermes.Everything(), time.Time{})
	require.NoError(t, err)
	msgs := gather(t, c, hermes.GatherOptions{})
	require.Len(t, msgs, 1)
	w.note("gathered", msgs[0], msgs)
	resp, err = c.RetryMessage(ctx, msgs[0])
	require.NoError(t, err)
	w.note("retried", resp, resp.Err())
	w.row(c, resp.FailedMessageID)
	_, err = c.RetryMessage(ctx, &hermes.FailedMessage{ID: "none", URL: req.URL.String(), Header: req.Header})
	w.note("not found", err)

	_, err = c.SendMessage(secretRequest(t, target), hermes.SaveOnFailure(false))
	w.note("send error", err)
	bad := secretRequest(t, target)
	bad.Header.Set("X-Bad", canaries["custom header"]+"\n")
	_, err = c.SendMessage(bad)
	w.note("invalid", err)

	set(t, db, resp.FailedMessageID, "url", "://"+canaries["query"]+"@"+canaries["user name"])
	w.row(c, resp.FailedMessageID)
	_, err = c.Reschedule(ctx, hermes.Everything(), time.Time{})
	require.NoError(t, err)
	_, err = c.RetryMessage(ctx, msgs[0])
	require.ErrorIs(t, err, hermes.ErrUnreadable)
	w.note("unreadable", err)

	faulty, plan := openFaulty(t, db, dsn)
	c, err = hermes.New(faulty, opts...)
	require.NoError(t, err)
	plan.plan(fault{at: 1, onwards: true, quoting: true})
	_, err = c.SendMessage(secretRequest(t, target))
	require.ErrorIs(t, err, hermes.ErrNotSaved)
	w.note("not saved", err)
	var lost *hermes.NotSavedError
	require.ErrorAs(t, err, &lost)
	w.note("lost", lost.Message, lost.Response.Err())
}

// row notes what is shown of a row: its texts, and the columns that pages and queries show.
func (w *witness) row(c *hermes.Client, id string) {
	m := row(w.t, c, id)
	w.note("row", m, m.LastError, m.AttemptLog, m.FailureKind, m.Unreadable())
	w.logger(slog.LevelDebug).Debug("row", "message", m)
	fmt.Fprintf(&w.seen, "row: %#v\n", m)
}

// TestASignersErrorDoesNotShowTheMessage: what it says of its own is its own to keep.
func TestASignersErrorDoesNotShowTheMessage(t *testing.T) {
	eachDSN(t, func(t *testing.T, dsn string) {
		for _, panics := range []bool{false, true} {
			w := &witness{t: t}
			c := newClient(t, testdb.Open(t, dsn), hermes.WithLogger(w.logger(slog.LevelDebug)), hermes.WithMaxRetryAttempts(0),
				hermes.WithRequestSigner(func(req *http.Request) error {
					body, _ := io.ReadAll(req.Body)
					text := fmt.Sprint(req.URL, req.Header, string(body))
					if panics {
						panic(text)
					}
					return errors.New(text)
				}))
			resp, err := c.SendMessage(secretRequest(t, "http://127.0.0.1:1/"))
			require.NoError(t, err)
			w.note("response", resp, resp.Err())
			w.row(c, resp.FailedMessageID)
			assert.Equal(t, hermes.KindSigner, row(t, c, resp.FailedMessageID).FailureKind)
			w.assertClean()
		}
	})
}

func TestAFailedMessageIsShownWithoutSecrets(t *testing.T) {
	t.Parallel()
	for stored, shown := range map[string]string{
		"https://user:CanaryUser@api.example.com/a%2Fb?token=CanaryUser": "https://redacted@api.example.com/a%2Fb?redacted",
		"https://api.example.com/":                                       "https://api.example.com/",
		"http://[CanaryUser":                                             "redacted",
	} {
		m := hermes.FailedMessage{ID: "42", Method: "POST", URL: stored, StatusCode: 503, Attempts: 6, Body: []byte("CanaryUser"),
			Header: http.Header{"X": {"CanaryUser"}}}
		assert.Equal(t, shown, m.RedactedURL())
		want := "failed message 42: POST " + shown + ", invalid, status 503, 6 attempts"
		for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
			assert.Equal(t, want, fmt.Sprintf(format, m), "by value")
			assert.Equal(t, want, fmt.Sprintf(format, &m))
		}
		var logged strings.Builder
		slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "by value", m, "message", &m)
		assert.NotContains(t, logged.String(), "Canary")
		assert.Contains(t, logged.String(), shown)
	}
}
