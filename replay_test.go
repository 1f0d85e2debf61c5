package hermes_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hermeshttp/hermes"
)

// The messages that net/http would re-send by itself.
var replayable = map[string]func(t testing.TB, url string) *http.Request{
	"POST with a body": func(t testing.TB, url string) *http.Request { return post(t, url, "hello") },
	"POST without a body": func(t testing.TB, url string) *http.Request {
		return post(t, url, "")
	},
	"DELETE": func(t testing.TB, url string) *http.Request {
		req, err := http.NewRequest(http.MethodDelete, url, nil)
		require.NoError(t, err)
		return req
	},
	"DELETE with the user's own Idempotency-Key": func(t testing.TB, url string) *http.Request {
		req := request(t, http.MethodDelete, url, "")
		req.Header.Set("Idempotency-Key", "mine")
		return req
	},
	"PUT with the user's own X-Idempotency-Key": func(t testing.TB, url string) *http.Request {
		req := request(t, http.MethodPut, url, "")
		req.Header.Set("X-Idempotency-Key", "mine")
		return req
	},
	"PATCH with a body and the user's own X-Idempotency-Key": func(t testing.TB, url string) *http.Request {
		req := request(t, http.MethodPatch, url, "hello")
		req.Header.Set("X-Idempotency-Key", "mine")
		return req
	},
}

// dropping is a server that answers the first request of every connection, and drops the connection when it has
// handled the second.
func dropping(t testing.TB, drop func(net.Conn)) (url string, seen *atomic.Int64) {
	seen = &atomic.Int64{}
	addr := tcpServer(t, func(_ int, conn net.Conn) {
		for reader, n := bufio.NewReader(conn), 1; ; n++ {
			req, err := http.ReadRequest(reader)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			if req.URL.Path != "/warm" {
				seen.Add(1)
			}
			if n > 1 {
				drop(conn)
				return
			}
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	return "http://" + addr, seen
}

var drops = map[string]func(t testing.TB) func(net.Conn){
	"closed": func(testing.TB) func(net.Conn) { return func(conn net.Conn) { conn.Close() } },
	"reset":  func(t testing.TB) func(net.Conn) { return func(conn net.Conn) { reset(t, conn) } },
}

func TestFault07_AKeptConnectionDiesAfterTheRequestWasHandled(t *testing.T) {
	t.Parallel()
	for dropName, drop := range drops {
		for name, newRequest := range replayable {
			t.Run(name+", "+dropName, func(t *testing.T) {
				t.Parallel()
				url, seen := dropping(t, drop(t))
				client, _ := ownClient(t)
				for _, retries := range []int{0, 3} {
					seen.Store(0)
					c := onSQLite(t, hermes.WithHTTPClient(client), hermes.WithMaxRetryAttempts(retries))
					warm(t, c, url)
					resp, err := c.SendMessage(newRequest(t, url))
					require.NoError(t, err)
					assert.EqualValues(t, seen.Load(), resp.Attempts)
					assert.Equal(t, retries > 0, resp.Succeeded())
					assert.Equal(t, min(1+retries, 2), resp.Attempts)
					client.CloseIdleConnections()
				}
			})
			t.Run("control: net/http alone, "+name+", "+dropName, func(t *testing.T) {
				t.Parallel()
				url, seen := dropping(t, drop(t))
				client, _ := ownClient(t)
				warm(t, client, url)
				req := newRequest(t, url)
				if req.Header.Get("X-Idempotency-Key") == "" {
					req.Header.Set("Idempotency-Key", "any")
				}
				resp, err := client.Do(req)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				assert.EqualValues(t, 2, seen.Load(), "if net/http does not re-send this, the test has lost its meaning")
			})
		}
	}
}

// warm leaves a connection that can be used again.
func warm(t testing.TB, with interface{}, url string) {
	t.Helper()
	req := request(t, http.MethodGet, url+"/warm", "")
	switch client := with.(type) {
	case *hermes.Client:
		resp, err := client.SendMessage(req)
		require.NoError(t, err)
		require.True(t, resp.Succeeded())
	case *http.Client:
		resp, err := client.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
	}
}

// TestFault07_AStaleConnectionCostsNoRetryInterval would take an hour.
func TestFault07_AStaleConnectionCostsNoRetryInterval(t *testing.T) {
	t.Parallel()
	for name, newRequest := range replayable {
		for sendName, send := range map[string]func(c *hermes.Client, req *http.Request) bool{
			"SendMessage": func(c *hermes.Client, req *http.Request) bool {
				resp, err := c.SendMessage(req)
				return assert.NoError(t, err) && resp.Succeeded()
			},
			"Transport": func(c *hermes.Client, req *http.Request) bool {
				resp, err := c.Transport().RoundTrip(req)
				return assert.NoError(t, err) && resp.Body.Close() == nil && resp.StatusCode == 200
			},
		} {
			t.Run(name+", "+sendName, func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				url, seen := dropping(t, func(conn net.Conn) { conn.Close() })
				client, _ := ownClient(t)
				c := onSQLite(t, hermes.WithHTTPClient(client), hermes.WithRetryInterval(time.Hour))
				warm(t, c, url)
				assert.True(t, send(c, newRequest(t, url).WithContext(ctx)))
				assert.EqualValues(t, 2, seen.Load())
			})
		}
	}
}

// TestFault07_OnlyOneRetryIsHurried: a receiver that hangs up on two kept connections in a row may mean it.
func TestFault07_OnlyOneRetryIsHurried(t *testing.T) {
	t.Parallel()
	var both sync.WaitGroup
	both.Add(2)
	s := newRawServer(t, func(n int, conn net.Conn) bool {
		if n > 2 {
			return false
		}
		both.Done()
		both.Wait() // so that there are two connections
		return says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(n, conn)
	})
	client, _ := ownClient(t)
	c := onSQLite(t, hermes.WithHTTPClient(client), hermes.WithRetryInterval(time.Hour))
	var warmed sync.WaitGroup
	for range 2 {
		warmed.Go(func() {
			resp, err := c.SendMessage(request(t, http.MethodGet, s.URL, ""))
			assert.NoError(t, err)
			assert.True(t, resp.Succeeded())
		})
	}
	warmed.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	resp, err := c.SendMessage(post(t, s.URL, "hello").WithContext(ctx))
	require.NoError(t, err)
	assert.Equal(t, 2, resp.Attempts)
	assert.NoError(t, ctx.Err(), "a wait that the deadline cannot outlast is not begun")
	assert.NotEmpty(t, resp.FailedMessageID)
}

// rawHTTP2 is a server of HTTP/2 without TLS that does with a request whatever a test wants (RFC 9113 section 4).
type rawHTTP2 struct {
	url  string
	seen atomic.Int64
}

const (
	frameHeaders, frameReset, frameSettings, frameGoAway = 1, 3, 4, 7

	flagEnd, flagAck = 1, 1

	protocolError, internalError, refusedStream = 1, 2, 7
)

func newRawHTTP2(t testing.TB, answer func(n int64, stream uint32, conn net.Conn) (keep bool)) *rawHTTP2 {
	s := &rawHTTP2{}
	s.url = "http://" + tcpServer(t, func(_ int, conn net.Conn) {
		reader := bufio.NewReader(conn)
		if _, err := io.CopyN(io.Discard, reader, int64(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))); err != nil {
			return
		}
		writeFrame(conn, frameSettings, 0, 0)
		for {
			var head [9]byte
			if _, err := io.ReadFull(reader, head[:]); err != nil {
				return
			}
			length := int64(head[0])<<16 | int64(head[1])<<8 | int64(head[2])
			if _, err := io.CopyN(io.Discard, reader, length); err != nil {
				return
			}
			kind, flags, stream := head[3], head[4], binary.BigEndian.Uint32(head[5:])
			switch {
			case kind == frameSettings && flags&flagAck == 0:
				writeFrame(conn, frameSettings, flagAck, 0)
			case stream != 0 && flags&flagEnd != 0 && kind <= frameHeaders: // the end of a request
				if !answer(s.seen.Add(1), stream, conn) {
					return
				}
			}
		}
	})
	return s
}

func writeFrame(w io.Writer, kind, flags byte, stream uint32, payload ...byte) {
	frame := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	frame = binary.BigEndian.AppendUint32(frame, stream)
	_, _ = w.Write(append(frame, payload...))
}

func word(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// answerOK is a HEADERS frame with a field of the static table: ":status: 200".
func answerOK(conn net.Conn, stream uint32) { writeFrame(conn, frameHeaders, 4|flagEnd, stream, 0x88) }

// newHTTP2Client returns a client that speaks HTTP/2 without TLS.
func newHTTP2Client(t testing.TB) *http.Client {
	client, transport := ownClient(t)
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetUnencryptedHTTP2(true)
	return client
}

// TestFault07_HTTP2 has a server that handles a request, and then resets its stream or ends the connection in one of
// the ways that HTTP/2 has for it.
func TestFault07_HTTP2(t *testing.T) {
	t.Parallel()
	resets := func(code uint32) func(stream uint32, conn net.Conn) bool {
		return func(stream uint32, conn net.Conn) bool {
			writeFrame(conn, frameReset, 0, stream, word(code)...)
			return true
		}
	}
	for _, test := range []struct {
		name    string
		end     func(stream uint32, conn net.Conn) bool
		replays bool // by net/http alone
	}{
		{"stream refused", resets(refusedStream), true},
		{"stream reset for a protocol error", resets(protocolError), true},
		{"stream reset for an internal error", resets(internalError), false},
		{"GOAWAY that takes it for unprocessed", func(stream uint32, conn net.Conn) bool {
			writeFrame(conn, frameGoAway, 0, 0, append(word(stream-2), word(0)...)...)
			return true
		}, true},
		{"GOAWAY", func(stream uint32, conn net.Conn) bool {
			writeFrame(conn, frameGoAway, 0, 0, append(word(stream), word(0)...)...)
			return false
		}, false},
		{"connection closed", func(uint32, net.Conn) bool { return false }, false},
		{"connection reset", func(_ uint32, conn net.Conn) bool { reset(t, conn); return false }, false},
	} {
		// Every connection's first request is answered, every other one is handled and then ends badly, as long as
		// there are some left to fail.
		start := func(t testing.TB, failures int64) *rawHTTP2 {
			return newRawHTTP2(t, func(n int64, stream uint32, conn net.Conn) bool {
				if 1 < n && n <= 1+failures {
					return test.end(stream, conn)
				}
				answerOK(conn, stream)
				return true
			})
		}
		for name, newRequest := range replayable {
			t.Run(test.name+", "+name, func(t *testing.T) {
				t.Parallel()
				for _, retries := range []int{0, 3} {
					s := start(t, 2)
					c := onSQLite(t, hermes.WithHTTPClient(newHTTP2Client(t)), hermes.WithMaxRetryAttempts(retries))
					warm(t, c, s.url)
					resp, err := c.SendMessage(newRequest(t, s.url))
					require.NoError(t, err)
					assert.EqualValues(t, s.seen.Load()-1, resp.Attempts)
					assert.Equal(t, min(1+retries, 3), resp.Attempts)
					assert.Equal(t, retries > 0, resp.Succeeded())
					if retries == 0 {
						row := only(t, c)
						assert.Equal(t, hermes.KindConnection, row.FailureKind)
						assert.True(t, row.Retryable)
					}
				}
			})
		}
		if !test.replays {
			continue
		}
		t.Run("control: net/http alone, "+test.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, 1)
			client := newHTTP2Client(t)
			warm(t, client, s.url)
			resp, err := client.Do(post(t, s.url, "hello"))
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			assert.EqualValues(t, 3, s.seen.Load(), "if net/http does not re-send this, the test has lost its meaning")
		})
	}
}

// TestFault07_HTTP2Redirects: what keeps a message from being replayed does not keep it from being redirected.
func TestFault07_HTTP2Redirects(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen []string
	server := newHTTP2Server(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, r.Method+" "+r.URL.Path)
		if r.URL.Path != "/2" {
			http.Redirect(w, r, map[string]string{"/": "/1", "/1": "/2"}[r.URL.Path], http.StatusPermanentRedirect)
		}
	})
	c := onSQLite(t, hermes.WithHTTPClient(server.Client()))
	resp, err := c.SendMessage(request(t, http.MethodDelete, server.URL+"/", ""))
	require.NoError(t, err)
	assert.True(t, resp.Succeeded(), "%v", resp.Err())
	assert.Equal(t, 1, resp.Attempts)
	assert.Equal(t, []string{"DELETE /", "DELETE /1", "DELETE /2"}, seen)
}
