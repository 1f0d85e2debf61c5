package hermes_test

import (
	"bufio"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

// onSQLite returns a client for tests that are about the wire, and not about the table.
func onSQLite(t testing.TB, opts ...hermes.Option) *hermes.Client {
	t.Helper()
	return newClient(t, testdb.SQLite(t), opts...)
}

// ownClient returns an http.Client whose connections end with the test.
func ownClient(t testing.TB) (*http.Client, *http.Transport) {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}, transport
}

// tcpServer hands every connection, counted from 1, to serve, and closes it when serve returns or the test ends.
func tcpServer(t testing.TB, serve func(n int, conn net.Conn)) (addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var (
		mu     sync.Mutex
		conns  []net.Conn
		closed bool
		group  sync.WaitGroup
	)
	group.Go(func() {
		for n := 1; ; n++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			if closed {
				conn.Close()
			}
			mu.Unlock()
			group.Go(func() {
				defer conn.Close()
				serve(n, conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		closed = true
		for _, conn := range conns {
			conn.Close()
		}
		mu.Unlock()
		group.Wait()
	})
	return listener.Addr().String()
}

// rawServer reads whole requests and has answer write what it wants to the connection, until that returns false. It
// counts the requests from 1.
type rawServer struct {
	URL string

	mu       sync.Mutex
	requests []received
	changed  *sync.Cond
}

func newRawServer(t testing.TB, answer func(n int, conn net.Conn) (keep bool)) *rawServer {
	t.Helper()
	s := &rawServer{}
	s.changed = sync.NewCond(&s.mu)
	s.URL = "http://" + tcpServer(t, func(_ int, conn net.Conn) {
		for reader := bufio.NewReader(conn); ; {
			req, err := http.ReadRequest(reader)
			if err != nil {
				return
			}
			body, err := io.ReadAll(req.Body)
			if err != nil {
				return
			}
			if !answer(s.note(received{req.Method, req.RequestURI, req.Host, string(body), req.Header}), conn) {
				return
			}
		}
	})
	return s
}

func (s *rawServer) note(r received) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r)
	s.changed.Broadcast()
	return len(s.requests)
}

func (s *rawServer) received() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]received(nil), s.requests...)
}

// says answers every request with the same bytes, and keeps the connection.
func says(text string) func(int, net.Conn) bool {
	return func(_ int, conn net.Conn) bool {
		_, err := io.WriteString(conn, text)
		return err == nil
	}
}

// hold blocks until the other side has closed the connection.
func hold(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// reset closes a connection so that the other side sees it reset.
func reset(t testing.TB, conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); assert.True(t, ok) {
		assert.NoError(t, tcp.SetLinger(0))
	}
	conn.Close()
}

// request makes a request, without a body if that is empty.
func request(t testing.TB, method, url, body string) *http.Request {
	t.Helper()
	req := post(t, url, body)
	req.Method = method
	return req
}

// soon fails the test if what took since start is longer than any correct run, on a busy machine too.
func soon(t testing.TB, start time.Time) {
	t.Helper()
	assert.Less(t, time.Since(start), 20*time.Second)
}

func parseURL(t testing.TB, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	require.NoError(t, err)
	return u
}

var silence = log.New(io.Discard, "", 0)

// http2Server is a server that speaks HTTP/2 with its Client.
type http2Server struct {
	*httptest.Server
	conns atomic.Int64
	left  atomic.Int64
}

func newHTTP2Server(t testing.TB, handler http.HandlerFunc) *http2Server {
	t.Helper()
	s := &http2Server{Server: httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, 2, r.ProtoMajor)
		handler(w, r)
	}))}
	s.EnableHTTP2 = true
	s.Config.ErrorLog = silence
	s.StartTLS()
	t.Cleanup(s.Close)
	s.watchClient()
	return s
}

// watchClient has the client's connections counted as they are made and as they are noticed to have ended.
func (s *http2Server) watchClient() {
	transport := s.Server.Client().Transport.(*http.Transport)
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, s.Listener.Addr().String())
		if err != nil {
			return nil, err
		}
		s.conns.Add(1)
		return &watchedConn{Conn: conn, closed: sync.OnceFunc(func() { s.left.Add(1) })}, nil
	}
}

// awaitNoClient returns when the client has noticed that all of its connections have ended.
func (s *http2Server) awaitNoClient(t testing.TB) {
	t.Helper()
	require.Eventually(t, func() bool { return s.left.Load() == s.conns.Load() }, 20*time.Second, time.Millisecond)
}

type watchedConn struct {
	net.Conn
	closed func()
}

func (c *watchedConn) Close() error {
	defer c.closed()
	return c.Conn.Close()
}

// jarWith returns a cookie jar with one cookie for a URL.
func jarWith(t testing.TB, site, cookie string) http.CookieJar {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	name, value, _ := strings.Cut(cookie, "=")
	jar.SetCookies(parseURL(t, site), []*http.Cookie{{Name: name, Value: value, Path: "/"}})
	return jar
}
