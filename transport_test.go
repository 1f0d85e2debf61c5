package hermes_test

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

// sendThrough sends through c.Transport with nothing above it, and reads the answer.
func sendThrough(t testing.TB, c *hermes.Client, req *http.Request) (status int, body string) {
	t.Helper()
	resp, err := c.Transport().RoundTrip(req)
	require.NoError(t, err)
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	if resp.StatusCode != http.StatusTemporaryRedirect && resp.StatusCode != http.StatusPermanentRedirect {
		assert.Same(t, req, resp.Request)
	}
	assert.NotNil(t, resp.Header)
	return resp.StatusCode, string(text)
}

func TestTransport_WhatBecomesARow(t *testing.T) {
	for _, test := range []struct {
		status   int
		attempts int
		state    hermes.State
	}{
		{200, 1, ""}, {204, 1, ""}, {299, 1, ""},
		{300, 1, hermes.StateInvalid}, {301, 1, hermes.StateInvalid}, {302, 1, hermes.StateInvalid},
		{303, 1, ""}, {304, 1, hermes.StateInvalid}, {307, 1, ""}, {308, 1, ""},
		{400, 1, hermes.StateInvalid}, {404, 1, hermes.StateInvalid}, {429, 1, hermes.StateInvalid},
		{500, 3, hermes.StateDue}, {503, 3, hermes.StateDue}, {600, 3, hermes.StateDue},
	} {
		for _, method := range []string{"", "GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE"} {
			t.Run(method+" "+strconv.Itoa(test.status), func(t *testing.T) {
				t.Parallel()
				c := onSQLite(t, hermes.WithMaxRetryAttempts(2))
				r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
					if test.status/100 == 3 {
						w.Header().Set("Location", "/elsewhere")
					}
					w.Header().Set("X-Own", "1")
					w.WriteHeader(test.status)
					if test.status != 204 && test.status != 304 {
						io.WriteString(w, "body")
					}
				})
				status, body := sendThrough(t, c, request(t, method, r.URL, "hello"))
				assert.Equal(t, test.status, status)
				if test.status != 204 && test.status != 304 && method != "HEAD" {
					assert.Equal(t, "body", body)
				}
				assert.Len(t, r.received(), test.attempts)
				if unsafe := strings.Contains("POST PUT DELETE", method) && method != ""; !unsafe || test.state == "" {
					assert.Zero(t, count(t, c, hermes.Filter{}))
					return
				}
				row := only(t, c)
				assert.Equal(t, test.state, row.State())
				assert.Equal(t, test.status, row.StatusCode)
				assert.Equal(t, method, row.Method)
				assert.Equal(t, "hello", string(row.Body))
			})
		}
	}
}

// TestTransport_UnderAnHTTPClient has the redirects that an http.Client makes of its own accord.
func TestTransport_UnderAnHTTPClient(t *testing.T) {
	const rewindable, oneWay, none = "rewindable", "one way", "none"
	for _, test := range []struct {
		status int
		method string
		body   string
		rows   int
		seen   []string
	}{
		{301, "GET", none, 0, []string{"GET /", "GET /end"}},
		{301, "POST", rewindable, 1, []string{"POST / hello", "GET /end"}},
		{302, "POST", rewindable, 1, []string{"POST / hello", "GET /end"}},
		{302, "DELETE", none, 1, []string{"DELETE /", "GET /end"}},
		{303, "POST", rewindable, 0, []string{"POST / hello", "GET /end"}},
		{307, "POST", rewindable, 0, []string{"POST / hello", "POST /end hello"}},
		{308, "PUT", rewindable, 0, []string{"PUT / hello", "PUT /end hello"}},
		{307, "DELETE", none, 0, []string{"DELETE /", "DELETE /end"}},
		{307, "POST", oneWay, 1, []string{"POST / hello"}},
		{308, "POST", oneWay, 1, []string{"POST / hello"}},
		{307, "POST", "one way, empty", 1, []string{"POST /"}},
	} {
		t.Run(fmt.Sprint("Fault03 ", test.status, " ", test.method, " body ", test.body), func(t *testing.T) {
			each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
				r := newReceiver(t, func(_ int, w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/" {
						w.Header().Set("Location", "/end")
						w.WriteHeader(test.status)
					}
				})
				req := request(t, test.method, r.URL+"/", map[string]string{rewindable: "hello", oneWay: "hello"}[test.body])
				switch test.body {
				case oneWay:
					req.GetBody = nil
				case "one way, empty":
					req.Body, req.GetBody = oneShot(""), nil
				}
				resp, err := (&http.Client{Transport: c.Transport()}).Do(req)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				var seen []string
				for _, one := range r.received() {
					seen = append(seen, strings.TrimSpace(one.Method+" "+one.URL+" "+one.Body))
				}
				assert.Equal(t, test.seen, seen)
				assert.EqualValues(t, test.rows, count(t, c, hermes.Filter{}))
				if test.rows > 0 {
					row := only(t, c)
					assert.Equal(t, hermes.StateInvalid, row.State())
					assert.Equal(t, test.status, row.StatusCode)
				}
			})
		})
	}
}

// TestTransport_ARedirectThatNoClientCanFollow leaves a row too.
func TestTransport_ARedirectThatNoClientCanFollow(t *testing.T) {
	t.Parallel()
	for _, location := range []string{"", "http://[::1", "/%zz"} {
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", location)
			w.WriteHeader(307)
		})
		c := onSQLite(t)
		status, _ := sendThrough(t, c, post(t, r.URL, "hello"))
		assert.Equal(t, 307, status)
		assert.Equal(t, hermes.StateInvalid, only(t, c).State(), location)
	}
}

func TestTransport_ADeliveredBodyStreamsWithoutBoundInSizeOrTime(t *testing.T) {
	t.Parallel()
	const timeout = 200 * time.Millisecond
	next := make(chan struct{})
	r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		for range 5 {
			w.Write(make([]byte, 1000))
			w.(http.Flusher).Flush()
			<-next
		}
	})
	c := onSQLite(t, hermes.WithRequestTimeout(timeout), hermes.WithMaxResponseBytes(10))
	resp, err := (&http.Client{Transport: c.Transport()}).Do(post(t, r.URL, "hello"))
	require.NoError(t, err)
	for range 5 {
		_, err := io.CopyN(io.Discard, resp.Body, 1000)
		require.NoError(t, err)
		time.Sleep(timeout / 3) //nolint:forbidigo // in all more than the timeout, which is what is tested
		next <- struct{}{}
	}
	rest, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Empty(t, rest)
	require.NoError(t, resp.Body.Close())
	assert.Len(t, r.received(), 1)
	assert.Zero(t, count(t, c, hermes.Filter{}))
}

func TestTransport_ClosingADeliveredBodyEarlyEndsTheRequest(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	r := newReceiver(t, func(_ int, w http.ResponseWriter, req *http.Request) {
		w.(http.Flusher).Flush()
		<-req.Context().Done()
		close(gone)
	})
	resp, err := onSQLite(t).Transport().RoundTrip(post(t, r.URL, "hello"))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	<-gone
}

func TestTransport_ATruncatedErrorBodyEndsUnexpectedly(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"longer than kept": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			io.WriteString(w, "0123456789x")
		},
		"breaks off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "20")
			w.WriteHeader(400)
			io.WriteString(w, "0123456789")
		},
	} {
		for _, method := range []string{"GET", "POST"} {
			t.Run(name+" "+method, func(t *testing.T) {
				t.Parallel()
				r := newReceiver(t, func(_ int, w http.ResponseWriter, r *http.Request) { answer(w, r) })
				c := onSQLite(t, hermes.WithMaxResponseBytes(10))
				resp, err := (&http.Client{Transport: c.Transport()}).Do(request(t, method, r.URL, ""))
				require.NoError(t, err)
				body, err := io.ReadAll(resp.Body)
				require.ErrorIs(t, err, io.ErrUnexpectedEOF)
				assert.Equal(t, "0123456789", string(body))
				assert.Equal(t, 400, resp.StatusCode)
			})
		}
	}
}

func TestTransport_NoAnswerIsASendErrorThatNamesTheRow(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		for _, method := range []string{"POST", "GET"} {
			resp, err := c.Transport().RoundTrip(request(t, method, refusing(t), "hello"))
			require.Nil(t, resp)
			var failure *hermes.SendError
			require.ErrorAs(t, err, &failure)
			assert.Equal(t, 2, failure.Attempts)
			assert.Equal(t, hermes.KindConnect, failure.Kind)
			if method == "GET" {
				assert.Empty(t, failure.FailedMessageID)
				continue
			}
			assert.Equal(t, only(t, c).ID, failure.FailedMessageID)
		}
	}, hermes.WithMaxRetryAttempts(1))
}

func TestTransport_AFailedSaveIsAnError(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(int, http.ResponseWriter, *http.Request){
		"400":       statuses(400),
		"no answer": func(int, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := testdb.SQLite(t)
			c := newClient(t, db, hermes.WithMaxRetryAttempts(0), hermes.WithSaveTimeout(50*time.Millisecond))
			require.NoError(t, db.Exec("DROP TABLE failed_message").Error)
			r := newReceiver(t, answer)
			resp, err := c.Transport().RoundTrip(post(t, r.URL, "hello"))
			require.Nil(t, resp)
			require.ErrorIs(t, err, hermes.ErrNotSaved)
			var lost *hermes.NotSavedError
			require.ErrorAs(t, err, &lost)
			assert.Equal(t, "hello", string(lost.Message.Body))

			resp, err = c.Transport(hermes.SaveOnFailure(false)).RoundTrip(post(t, r.URL, "hello"))
			if name == "400" {
				require.NoError(t, err)
				assert.Equal(t, 400, resp.StatusCode)
				require.NoError(t, resp.Body.Close())
				return
			}
			var failure *hermes.SendError
			require.ErrorAs(t, err, &failure)
			assert.Empty(t, failure.FailedMessageID)
		})
	}
}

// TestTransport_NeverNeitherAnswerNorError: a policy cannot take no answer for a delivery.
func TestTransport_NeverNeitherAnswerNorError(t *testing.T) {
	t.Parallel()
	c := onSQLite(t, hermes.WithPolicy(func(hermes.Attempt) hermes.Outcome { return hermes.Delivered }), hermes.WithMaxRetryAttempts(1))
	resp, err := c.Transport().RoundTrip(post(t, refusing(t), "hello"))
	require.Error(t, err)
	assert.Nil(t, resp)
	require.NoError(t, c.PurgeMessage(t.Context(), only(t, c)))

	r := newReceiver(t, statuses(409))
	status, _ := sendThrough(t, c, post(t, r.URL, "hello"))
	assert.Equal(t, 409, status)
	assert.Zero(t, count(t, c, hermes.Filter{}))
}
