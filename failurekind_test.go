package hermes_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hermeshttp/hermes"
)

func TestFault05_WhatCertainlyWasNotSent(t *testing.T) {
	t.Parallel()
	silent := func(t *testing.T) string { return tcpServer(t, func(_ int, conn net.Conn) { hold(conn) }) }
	for _, test := range []struct {
		name     string
		kind     hermes.FailureKind
		attempts int
		url      func(t *testing.T, transport *http.Transport) string
	}{
		{"connection refused", hermes.KindConnect, 2, func(t *testing.T, _ *http.Transport) string {
			return refusing(t)
		}},
		{"unknown host", hermes.KindDNS, 1, func(t *testing.T, transport *http.Transport) string {
			transport.DialContext = (&net.Dialer{Resolver: resolver(t, 3)}).DialContext
			return "http://nowhere.test/"
		}},
		{"name server fails", hermes.KindDNS, 2, func(t *testing.T, transport *http.Transport) string {
			transport.DialContext = (&net.Dialer{Resolver: resolver(t, 2)}).DialContext
			return "http://nowhere.test/"
		}},
		{"certificate of an unknown authority", hermes.KindTLS, 1, func(t *testing.T, _ *http.Transport) string {
			return tlsServer(t, nil).URL
		}},
		{"certificate of another host", hermes.KindTLS, 1, func(t *testing.T, transport *http.Transport) string {
			server := tlsServer(t, nil)
			transport.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			transport.TLSClientConfig.ServerName = "other.test"
			return server.URL
		}},
		{"no common TLS version", hermes.KindTLS, 2, func(t *testing.T, transport *http.Transport) string {
			server := tlsServer(t, &tls.Config{MinVersion: tls.VersionTLS13})
			transport.TLSClientConfig = &tls.Config{MaxVersion: tls.VersionTLS12}
			return server.URL
		}},
		{"not TLS", hermes.KindTLS, 2, func(t *testing.T, _ *http.Transport) string {
			return "https://" + tcpServer(t, func(_ int, conn net.Conn) { io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n") })
		}},
		{"hangs up in the TLS handshake", hermes.KindConnect, 2, func(t *testing.T, _ *http.Transport) string {
			return "https://" + tcpServer(t, func(_ int, conn net.Conn) { conn.Read(make([]byte, 1)) })
		}},
		{"TLS handshake timeout", hermes.KindConnectTimeout, 2, func(t *testing.T, transport *http.Transport) string {
			transport.TLSHandshakeTimeout = 50 * time.Millisecond
			return "https://" + silent(t)
		}},
		{"request timeout in the TLS handshake", hermes.KindConnectTimeout, 2, func(t *testing.T, _ *http.Transport) string {
			return "https://" + silent(t)
		}},
		{"dial timeout", hermes.KindConnectTimeout, 2, func(_ *testing.T, transport *http.Transport) string {
			transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return "http://127.0.0.1/"
		}},
		{"proxy refuses", hermes.KindConnect, 2, func(t *testing.T, transport *http.Transport) string {
			proxy := newReceiver(t, statuses(407))
			transport.Proxy = func(r *http.Request) (*url.URL, error) { return parseURL(t, proxy.URL), nil }
			return "https://127.0.0.1:1/"
		}},
	} {
		for name, send := range sends {
			t.Run(test.name+", "+name, func(t *testing.T) {
				t.Parallel()
				client, transport := ownClient(t)
				target := test.url(t, transport)
				c := onSQLite(t, hermes.WithHTTPClient(client), hermes.WithMaxRetryAttempts(1), hermes.WithRequestTimeout(2*time.Second))
				failure := send(t, c, post(t, target, "hello"))
				assert.Zero(t, failure.StatusCode)
				assert.Equal(t, test.kind, failure.Kind, "%v", failure.Err)
				assert.True(t, failure.Kind.NotSent())
				assert.Equal(t, test.attempts, failure.Attempts)
				row := only(t, c)
				assert.Equal(t, failure.FailedMessageID, row.ID)
				assert.Equal(t, test.kind, row.FailureKind)
				assert.Zero(t, row.StatusCode)
				assert.True(t, row.Retryable)
				assert.NotEmpty(t, row.LastError)
			})
		}
	}
}

// TestFault05_AHandshakeThatEndsLate makes a dial go on after its attempt, while the next ones are made.
func TestFault05_AHandshakeThatEndsLate(t *testing.T) {
	t.Parallel()
	late := make(chan struct{})
	addr := tcpServer(t, func(n int, conn net.Conn) {
		if n > 3 {
			return
		}
		<-late
	})
	var once sync.Once
	c := onSQLite(t, hermes.WithMaxRetryAttempts(30), hermes.WithRequestTimeout(50*time.Millisecond),
		hermes.WithHooks(hermes.Hooks{AttemptStart: func(_ context.Context, info hermes.AttemptStartInfo) context.Context {
			if info.Number == 3 {
				once.Do(func() { close(late) })
			}
			return nil
		}}))
	resp, err := c.SendMessage(post(t, "https://"+addr, "hello"))
	require.NoError(t, err)
	assert.Equal(t, 31, resp.Attempts)
	assert.True(t, only(t, c).FailureKind.NotSent())
}

func TestFault06_WhatMayHaveArrived(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		kind   hermes.FailureKind
		answer func(conn net.Conn)
	}{
		{"timeout", hermes.KindTimeout, hold},
		{"end", hermes.KindConnection, func(net.Conn) {}},
		{"reset", hermes.KindConnection, func(conn net.Conn) { reset(t, conn) }},
		{"end in the status line", hermes.KindConnection, func(conn net.Conn) { io.WriteString(conn, "HTTP/1.1 20") }},
		{"end in the header", hermes.KindConnection, func(conn net.Conn) { io.WriteString(conn, "HTTP/1.1 200 OK\r\nA:") }},
		{"garbage", hermes.KindConnection, func(conn net.Conn) { io.WriteString(conn, "220 smtp.test ESMTP\r\n\r\n") }},
		{"timeout in the header", hermes.KindTimeout, func(conn net.Conn) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nA:")
			hold(conn)
		}},
	} {
		for name, send := range sends {
			t.Run(test.name+", "+name, func(t *testing.T) {
				t.Parallel()
				s := newRawServer(t, func(_ int, conn net.Conn) bool { test.answer(conn); return false })
				c := onSQLite(t, hermes.WithMaxRetryAttempts(1), hermes.WithRequestTimeout(2*time.Second))
				assertAmbiguous(t, c, send(t, c, post(t, s.URL, "hello")), test.kind)
				assert.Len(t, s.received(), 2)
			})
		}
	}
}

// TestFault06_OverHTTP2 has the last failing attempt on a first, a reused, and a connection that replaces one that had
// died unnoticed: in each case the receiver got the request.
func TestFault06_OverHTTP2(t *testing.T) {
	t.Parallel()
	failures := map[hermes.FailureKind]http.HandlerFunc{
		hermes.KindTimeout:    func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		hermes.KindConnection: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	}
	for kind, fail := range failures {
		for _, connection := range []string{"first", "reused", "replaced"} {
			for name, send := range sends {
				t.Run(string(kind)+", "+connection+" connection, "+name, func(t *testing.T) {
					t.Parallel()
					server := newHTTP2Server(t, func(w http.ResponseWriter, r *http.Request) {
						if r.URL.Path == "/fail" {
							fail(w, r)
						}
					})
					c := onSQLite(t, hermes.WithHTTPClient(server.Client()), hermes.WithMaxRetryAttempts(0),
						hermes.WithRequestTimeout(3*time.Second))
					if connection != "first" {
						resp, err := c.SendMessage(post(t, server.URL, "hello"))
						require.NoError(t, err)
						require.True(t, resp.Succeeded())
					}
					if connection == "replaced" {
						server.CloseClientConnections()
						server.awaitNoClient(t)
					}
					assertAmbiguous(t, c, send(t, c, post(t, server.URL+"/fail", "hello")), kind)
				})
			}
		}
	}
}

func assertAmbiguous(t *testing.T, c *hermes.Client, failure *hermes.SendError, kind hermes.FailureKind) {
	t.Helper()
	assert.Zero(t, failure.StatusCode)
	assert.Equal(t, kind, failure.Kind, "%v", failure.Err)
	assert.False(t, failure.Kind.NotSent())
	row := only(t, c)
	assert.Equal(t, failure.FailedMessageID, row.ID)
	assert.Equal(t, kind, row.FailureKind)
	assert.True(t, row.Retryable)
	require.NotNil(t, row.NextAttemptAt)
}

// sends are the two ways to send a message, for what holds of both. The message must fail without an answer.
var sends = map[string]func(t *testing.T, c *hermes.Client, req *http.Request) *hermes.SendError{
	"SendMessage": func(t *testing.T, c *hermes.Client, req *http.Request) *hermes.SendError {
		resp, err := c.SendMessage(req)
		require.NoError(t, err)
		var failure *hermes.SendError
		require.ErrorAs(t, resp.Err(), &failure)
		assert.Equal(t, resp.Attempts, failure.Attempts)
		assert.Nil(t, resp.Header)
		return failure
	},
	"Transport": func(t *testing.T, c *hermes.Client, req *http.Request) *hermes.SendError {
		resp, err := (&http.Client{Transport: c.Transport()}).Do(req)
		require.Nil(t, resp)
		var failure *hermes.SendError
		require.ErrorAs(t, err, &failure)
		return failure
	},
}

// refusing returns a URL where nobody listens.
func refusing(t testing.TB) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	return "http://" + listener.Addr().String()
}

// tlsServer is one that answers 200, without noise in the log about clients that do not trust it.
func tlsServer(t testing.TB, config *tls.Config) *httptest.Server {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ErrorLog = silence
	server.TLS = config
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// resolver asks a name server that answers every question with one RCODE (RFC 1035 section 4.1.1).
func resolver(t testing.TB, rcode byte) *net.Resolver {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for message := make([]byte, 512); ; {
			n, from, err := server.ReadFrom(message)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if n < 12 {
				continue
			}
			message[2], message[3] = 0x81, 0x80|rcode
			message[10], message[11] = 0, 0 // no additional records, the question's EDNS among them
			server.WriteTo(message[:questionEnd(message[:n])], from)
		}
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

// questionEnd is where the one question of a DNS message ends: labels, type and class.
func questionEnd(message []byte) int {
	i := 12
	for message[i] != 0 {
		i += 1 + int(message[i])
	}
	return i + 5
}
