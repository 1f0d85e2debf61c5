package hermes_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

func TestFault01_A2xxIsADeliveryWhateverBecomesOfItsBody(t *testing.T) {
	t.Parallel()
	const limit = 1000
	for _, test := range []struct {
		name      string
		answer    func(conn net.Conn)
		body      string
		truncated bool
	}{
		{"empty", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") }, "", false},
		{"204", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n") }, "", false},
		{"as long as the limit", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"+strings.Repeat("x", limit))
		}, strings.Repeat("x", limit), false},
		{"a byte longer than the limit", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n"+strings.Repeat("x", limit+1))
		}, strings.Repeat("x", limit), true},
		{"truncated", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf") }, "half", true},
		{"no body where one was promised", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n") }, "", true},
		{"reset", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 299 Odd\r\nContent-Length: 100\r\n\r\n")
			reset(t, c)
		}, "", true},
		{"malformed chunk", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nnonsense")
		}, "half", true},
		{"malformed gzip", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope")
		}, "", true},
		{"endless", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			for chunk := bytes.Repeat([]byte("x"), 1<<10); ; {
				if _, err := c.Write(chunk); err != nil {
					return
				}
			}
		}, strings.Repeat("x", limit), true},
		{"stalled", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
			hold(c)
		}, "half", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := onSQLite(t, hermes.WithMaxResponseBytes(limit), hermes.WithRequestTimeout(time.Second))
			s := newRawServer(t, func(_ int, conn net.Conn) bool { test.answer(conn); return false })
			resp, err := c.SendMessage(post(t, s.URL, "hello"))
			require.NoError(t, err)
			assert.True(t, resp.Succeeded())
			assert.NoError(t, resp.Err())
			assert.Equal(t, 1, resp.Attempts)
			assert.Equal(t, test.body, string(resp.Body))
			assert.Equal(t, test.truncated, resp.Truncated)
			assert.Empty(t, resp.FailedMessageID)
			assert.Zero(t, count(t, c, hermes.Filter{}))
			assert.Len(t, s.received(), 1)
		})
	}
}

func TestFault02_OddStatuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, answer string
		status       int
		outcome      hermes.Outcome
	}{
		{"101", "101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: odd", 101, hermes.Retryable},
		{"100 and no more", "100 Continue", 0, hermes.Retryable},
		{"103 and no more", "103 Early Hints", 0, hermes.Retryable},
		{"199 and no more", "199 Odd", 0, hermes.Retryable},
		{"300", "300 Multiple Choices\r\nContent-Length: 0", 300, hermes.Invalid},
		{"300 with Location", "300 Multiple Choices\r\nLocation: /x\r\nContent-Length: 0", 300, hermes.Invalid},
		{"301 without Location", "301 Moved\r\nContent-Length: 0", 301, hermes.Invalid},
		{"302 without Location", "302 Found\r\nContent-Length: 0", 302, hermes.Invalid},
		{"303 without Location", "303 See Other\r\nContent-Length: 0", 303, hermes.Invalid},
		{"304", "304 Not Modified", 304, hermes.Invalid},
		{"304 with Location", "304 Not Modified\r\nLocation: /x", 304, hermes.Invalid},
		{"305", "305 Use Proxy\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0", 305, hermes.Invalid},
		{"307 without Location", "307 Temporary Redirect\r\nContent-Length: 0", 307, hermes.Invalid},
		{"308 with an empty Location", "308 Permanent Redirect\r\nLocation:\r\nContent-Length: 0", 308, hermes.Invalid},
		{"418", "418 I'm a teapot\r\nContent-Length: 0", 418, hermes.Invalid},
		{"499", "499\r\nContent-Length: 0", 499, hermes.Invalid},
		{"500", "500 \r\nContent-Length: 0", 500, hermes.Retryable},
		{"600", "600 Odd\r\nContent-Length: 0", 600, hermes.Retryable},
		{"999", "999 Odd\r\nContent-Length: 0", 999, hermes.Retryable},
		{"000", "000 Odd\r\nContent-Length: 0", 0, hermes.Retryable},
		{"four digits", "2000 Odd\r\nContent-Length: 0", 0, hermes.Retryable},
		{"not a number", "two hundred\r\nContent-Length: 0", 0, hermes.Retryable},
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
			t.Run(test.name+" to "+method, func(t *testing.T) {
				t.Parallel()
				start := time.Now()
				c := onSQLite(t, hermes.WithMaxRetryAttempts(1), hermes.WithRequestTimeout(3*time.Second))
				s := newRawServer(t, says("HTTP/1.1 "+test.answer+"\r\n\r\n"))
				resp, err := c.SendMessage(request(t, method, s.URL, ""))
				require.NoError(t, err)
				assert.Equal(t, test.status, resp.StatusCode)
				assert.Equal(t, test.outcome, resp.Outcome)
				assert.Error(t, resp.Err())
				row := only(t, c)
				assert.Equal(t, resp.FailedMessageID, row.ID)
				assert.Equal(t, test.status, row.StatusCode)
				assert.Equal(t, test.outcome == hermes.Retryable, row.Retryable)
				assert.False(t, row.FailureKind.NotSent(), "the server has seen it")
				if test.outcome == hermes.Invalid {
					assert.Len(t, s.received(), 1)
				}
				assert.Equal(t, len(s.received()), resp.Attempts)
				soon(t, start)
			})
		}
	}
}

func TestFault08_TheTimeoutCoversTheWholeAttempt(t *testing.T) {
	t.Parallel()
	trickle := func(conn net.Conn, text string) {
		for i := range text {
			if _, err := io.WriteString(conn, text[i:i+1]); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond) //nolint:forbidigo // the slowness is what is tested
		}
	}
	for _, test := range []struct {
		name   string
		answer func(conn net.Conn)
		status int
		kind   hermes.FailureKind
	}{
		{"status line", func(c net.Conn) { trickle(c, "HTTP/1.1 500 "+strings.Repeat("x", 2000)) }, 0, hermes.KindTimeout},
		{"headers", func(c net.Conn) { trickle(c, "HTTP/1.1 500 Odd\r\n"+strings.Repeat("A: b\r\n", 500)) }, 0, hermes.KindTimeout},
		{"1xx for ever", func(c net.Conn) { trickle(c, strings.Repeat("HTTP/1.1 103 Early\r\n\r\n", 500)) }, 0, hermes.KindTimeout},
		{"body", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 500 Odd\r\nContent-Length: 2000\r\n\r\n")
			trickle(c, strings.Repeat("x", 2000))
		}, 500, hermes.KindStatus},
		{"no byte at all", hold, 0, hermes.KindTimeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := onSQLite(t, hermes.WithMaxRetryAttempts(1), hermes.WithRequestTimeout(2*time.Second))
			s := newRawServer(t, func(_ int, conn net.Conn) bool { test.answer(conn); return false })
			start := time.Now()
			resp, err := c.SendMessage(post(t, s.URL, "hello"))
			require.NoError(t, err)
			soon(t, start) // each answer would take 40 s and more
			assert.Equal(t, 2, resp.Attempts)
			assert.Equal(t, test.status, resp.StatusCode)
			assert.Equal(t, test.status != 0, resp.Truncated)
			row := only(t, c)
			assert.Equal(t, test.kind, row.FailureKind)
			assert.True(t, row.Retryable)
		})
	}
}

func TestFault09_HeadersOf10MBAreNotTaken(t *testing.T) {
	t.Parallel()
	var written atomic.Int64
	s := newRawServer(t, func(_ int, conn net.Conn) bool {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
		for i := range 10 << 10 {
			n, err := io.WriteString(conn, "X-"+strconv.Itoa(i)+": "+strings.Repeat("x", 1<<10)+"\r\n")
			if written.Add(int64(n)); err != nil {
				return false
			}
		}
		io.WriteString(conn, "Content-Length: 0\r\n\r\n")
		return false
	})
	c := onSQLite(t, hermes.WithMaxRetryAttempts(0))
	resp, err := c.SendMessage(post(t, s.URL, "hello"))
	require.NoError(t, err)
	assert.Zero(t, resp.StatusCode)
	row := only(t, c)
	assert.Equal(t, hermes.KindConnection, row.FailureKind)
	assert.True(t, row.Retryable)
	assert.Less(t, len(row.LastError), 2000)
}

func TestFault09_AGzipBombIsBoundedByWhatItUnpacksTo(t *testing.T) {
	t.Parallel()
	var bomb bytes.Buffer
	zip := gzip.NewWriter(&bomb)
	for zeros := make([]byte, 1<<20); bomb.Len() < 64<<10; {
		_, err := zip.Write(zeros)
		require.NoError(t, err)
	}
	require.NoError(t, zip.Close())
	for _, status := range []int{200, 400, 500} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				w.WriteHeader(status)
				w.Write(bomb.Bytes())
			})
			const limit = 100_000
			c := onSQLite(t, hermes.WithMaxRetryAttempts(0), hermes.WithMaxResponseBytes(limit))
			resp, err := c.SendMessage(post(t, r.URL, "hello"))
			require.NoError(t, err)
			assert.Equal(t, status, resp.StatusCode)
			assert.Len(t, resp.Body, limit)
			assert.Less(t, cap(resp.Body), 4*limit)
			assert.True(t, resp.Truncated)
		})
	}
}

func TestFault10_AttemptsGiveTheirConnectionBack(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]int{"no body": 0, "body": 100, "body longer than is read": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var open atomic.Int64
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				switch r.URL.Path {
				case "/redirect":
					w.Header().Set("Location", "/")
					w.WriteHeader(http.StatusTemporaryRedirect)
				case "/see-other":
					w.Header().Set("Location", "/")
					w.WriteHeader(http.StatusSeeOther)
				default:
					w.WriteHeader(http.StatusServiceUnavailable)
				}
				w.Write(make([]byte, body))
			}))
			server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				switch state {
				case http.StateNew:
					open.Add(1)
				case http.StateClosed, http.StateHijacked:
					open.Add(-1)
				}
			}
			server.Start()
			t.Cleanup(server.Close)

			client, transport := ownClient(t)
			transport.MaxConnsPerHost = 1
			c := onSQLite(t, hermes.WithHTTPClient(client), hermes.WithMaxResponseBytes(1000), hermes.WithMaxRetryAttempts(4))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for _, path := range []string{"/", "/redirect", "/see-other", "/", "/redirect", "/", "/", "/", "/", "/"} { // 46 attempts
				resp, err := c.SendMessage(post(t, server.URL+path, "hello").WithContext(ctx))
				require.NoError(t, err)
				require.NotErrorIs(t, resp.Err(), context.DeadlineExceeded)
				require.NotZero(t, resp.StatusCode)
			}
			back, err := c.Transport().RoundTrip(post(t, server.URL, "hello").WithContext(ctx)) // 5 more
			require.NoError(t, err)
			require.NoError(t, back.Body.Close())

			transport.CloseIdleConnections()
			assert.Eventually(t, func() bool { return open.Load() == 0 }, 20*time.Second, 5*time.Millisecond)
		})
	}
}

func TestFault11_RetryAfterThroughTheWholeClient(t *testing.T) {
	t.Parallel()
	const cap, furthest = time.Minute, time.Hour
	for _, test := range []struct {
		name   string
		values []string
		sleeps bool          // it is waited for in process, or ignored
		next   time.Duration // when the row is due
	}{
		{"none", nil, true, 0},
		{"0", []string{"0"}, true, 0},
		{"-1", []string{"-1"}, true, 0},
		{"1e30", []string{"1e30"}, true, 0},
		{"1.5", []string{"1.5"}, true, 0},
		{"garbage", []string{"soon"}, true, 0},
		{"past date", []string{"Wed, 21 Oct 2015 07:28:00 GMT"}, true, 0},
		{"longer than the cap", []string{"120"}, false, 2 * time.Minute},
		{"the longest postponement", []string{"3600"}, false, time.Hour},
		{"longer than any postponement", []string{"3601"}, false, furthest},
		{"Unix time", []string{"1774744200"}, false, furthest},
		{"more than an int64", []string{"99999999999999999999"}, false, furthest},
		{"year 9999", []string{"Fri, 31 Dec 9999 23:59:59 GMT"}, false, furthest},
		{"twice", []string{"0", "120"}, false, 2 * time.Minute},
		{"beside garbage", []string{"soon", "120"}, false, 2 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
				r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
					w.Header()["Retry-After"] = test.values
					w.WriteHeader(503)
				})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				// Shorter than the waits asked for. Not a deadline, which a wait would not be begun for.
				defer time.AfterFunc(20*time.Second, cancel).Stop()
				resp, err := c.SendMessage(post(t, r.URL, "hello").WithContext(ctx))
				require.NoError(t, err)
				attempts := 1
				if test.sleeps {
					attempts = 2
				}
				assert.Equal(t, attempts, resp.Attempts)
				row := only(t, c)
				due := row.NextAttemptAt.Sub(row.CreatedAt)
				assert.InDelta(t, test.next.Seconds(), due.Seconds(), 1)

				retried, err := c.RetryMessage(ctx, row)
				require.NoError(t, err)
				assert.Equal(t, 1, retried.Attempts)
				again := only(t, c)
				want := max(test.next, 10*time.Second) // the redelivery backoff
				assert.InDelta(t, want.Seconds(), again.NextAttemptAt.Sub(again.UpdatedAt).Seconds(), 1)
				assert.NoError(t, ctx.Err(), "it slept")
			}, hermes.WithMaxRetryAfter(cap), hermes.WithMaxPostpone(furthest), hermes.WithMaxRetryAttempts(1),
				hermes.WithRedeliveryBackoff(hermes.ConstantBackoff(10*time.Second)))
		})
	}
}

func TestFault11_RetryAfterIsAFloorForTheWait(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(503)
		}
	})
	c := onSQLite(t)
	start := time.Now()
	resp, err := c.SendMessage(post(t, r.URL, "hello"))
	require.NoError(t, err)
	assert.True(t, resp.Succeeded())
	assert.Equal(t, 2, resp.Attempts)
	assert.GreaterOrEqual(t, time.Since(start), time.Second)
}
