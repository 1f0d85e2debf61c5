package hermes_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

// refusals are the two ways to send a message that is refused.
var refusals = map[string]func(c *hermes.Client, req *http.Request) error{
	"SendMessage": func(c *hermes.Client, req *http.Request) error {
		resp, err := c.SendMessage(req)
		if resp != nil {
			return fmt.Errorf("a response: %+v", resp)
		}
		return err
	},
	"Transport": func(c *hermes.Client, req *http.Request) error {
		resp, err := c.Transport().RoundTrip(req)
		if resp != nil {
			return fmt.Errorf("a response: %+v", resp)
		}
		return err
	},
}

// TestFault13_SentLaterExactlyAsFirstSent compares what a receiver gets from SendMessage with what it gets from
// RetryMessage.
func TestFault13_SentLaterExactlyAsFirstSent(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		target string // what is expected in the request line
		change func(req *http.Request)
	}{
		{"root", "/", func(*http.Request) {}},
		{"no path", "/", func(r *http.Request) { r.URL.Path = "" }},
		{"empty method", "/", func(r *http.Request) { r.Method = "" }},
		{"odd method", "/", func(r *http.Request) { r.Method = "x-Odd!" }},
		{"lower-case method", "/", func(r *http.Request) { r.Method = "post" }},
		{"another Host", "/", func(r *http.Request) { r.Host = "virtual.test:81" }},
		{"Host in upper case", "/", func(r *http.Request) { r.Host = "VIRTUAL.test" }},
		{"escaped slash", "/a%2Fb", setURL("/a%2Fb")},
		{"escaped in lower case", "/a%2fb%7e", setURL("/a%2fb%7e")},
		{"needlessly escaped", "/%41", setURL("/%41")},
		{"two slashes", "//a//b/", setURL("//a//b/")},
		{"dots", "/a/./../b", setURL("/a/./../b")},
		{"space and letters above ASCII", "/%20%C3%BC", func(r *http.Request) { r.URL.Path = "/ ü" }},
		{"not UTF-8", "/%FF", func(r *http.Request) { r.URL.Path = "/\xff" }},
		{"NUL", "/%00", func(r *http.Request) { r.URL.Path = "/\x00" }},
		{"percent", "/%2541%25", func(r *http.Request) { r.URL.Path = "/%41%" }},
		{"semicolons, colons and brackets", "/a;b:c@d,e=f&g+h$i(j)*!'", setURL("/a;b:c@d,e=f&g+h$i(j)*!'")},
		{"colon first", "/:a", setURL("/:a")},
		{"question mark only", "/?", setURL("/?")},
		{"two question marks", "/??", setURL("/??")},
		{"odd query", "/?a=1;b&&=%zz%&c=+%20[]{}|\"'<>`^\\", func(r *http.Request) { r.URL.RawQuery = "a=1;b&&=%zz%&c=+%20[]{}|\"'<>`^\\" }},
		{"query out of order, with a URL", "/?z=1&a=http://b.test/?c=d&z=2", setURL("/?z=1&a=http://b.test/?c=d&z=2")},
		{"query above ASCII", "/?ü=ü", func(r *http.Request) { r.URL.RawQuery = "ü=ü" }},
		{"fragment", "/?a", func(r *http.Request) { r.URL.RawQuery, r.URL.Fragment = "a", "f\x00#" }},
		{"escaped path, not the path's", "/%2541", func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/%41", "/other" }},
		{"no User-Agent", "/", func(r *http.Request) { r.Header["User-Agent"] = nil }},
		{"header", "/", func(r *http.Request) {
			r.Header["x-lower"] = []string{"1", "", " 2 ", "a\tb", "\xff"}
			r.Header["User-Agent"] = []string{"me"}
			r.Header["Accept-Encoding"] = []string{"br"}
		}},
		{"DELETE without a body", "/", func(r *http.Request) { r.Method, r.Body, r.ContentLength = "DELETE", nil, 0 }},
		{"GET with a body", "/", func(r *http.Request) { r.Method = "GET" }},
		{"own idempotency key", "/", func(r *http.Request) { r.Header["idempotency-KEY"] = []string{"mine"} }},
		{"own X-Idempotency-Key", "/", func(r *http.Request) { r.Header.Set("X-Idempotency-Key", "mine") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
				s := newRawServer(t, says("HTTP/1.1 503 \r\nContent-Length: 0\r\n\r\n"))
				req := post(t, s.URL+"/", "hello")
				test.change(req)
				_, err := c.SendMessage(req)
				require.NoError(t, err)
				_, err = c.RetryMessage(t.Context(), only(t, c))
				require.NoError(t, err)
				seen := s.received()
				require.Len(t, seen, 2)
				assert.Equal(t, test.target, seen[0].URL)
				assert.Equal(t, seen[0], seen[1])
			}, hermes.WithMaxRetryAttempts(0))
		})
	}
}

// setURL sets path and query as they are parsed.
func setURL(target string) func(*http.Request) {
	return func(req *http.Request) {
		u, err := url.Parse("http://" + req.URL.Host + target)
		if err != nil {
			panic(err)
		}
		req.URL = u
	}
}

func TestFault13_TheCallersRequestIsNotModified(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, func(n int, w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/redirect" {
			http.Redirect(w, req, "/", http.StatusTemporaryRedirect)
			return
		}
		w.WriteHeader(503)
	})
	client, _ := ownClient(t)
	client.Jar = jarWith(t, r.URL, "from=jar")
	c := onSQLite(t, hermes.WithHTTPClient(client), hermes.WithMaxRetryAttempts(1), hermes.WithRequestSigner(func(req *http.Request) error {
		req.Header.Set("Authorization", "signed")
		req.Header.Del("X-Own")
		req.URL.Path += "signed"
		req.URL.RawQuery = "signed"
		req.Host = "signed.test"
		return nil
	}))
	for name, send := range map[string]func(req *http.Request) error{
		"SendMessage": func(req *http.Request) error { _, err := c.SendMessage(req); return err },
		"Transport": func(req *http.Request) error {
			resp, err := c.Transport().RoundTrip(req)
			if err == nil {
				err = resp.Body.Close()
			}
			return err
		},
	} {
		for _, method := range []string{"", "POST", "DELETE"} {
			req := request(t, method, "http://user:secret@"+r.Listener.Addr().String()+"/redirect?a=b", "hello")
			if method == "DELETE" {
				req.Body, req.ContentLength, req.GetBody = nil, 0, nil
			}
			req.Header = http.Header{"X-Own": {"1", "2"}, "idempotency-key": {"mine"}, "Cookie": {"own=1"}, "X-Nil": nil}
			before := *req
			u, header := *req.URL, maps.Clone(req.Header)
			values := req.Header["X-Own"]
			require.NoError(t, send(req), name)
			assert.Equal(t, &u, req.URL, name)
			assert.Equal(t, header, req.Header, name)
			assert.Equal(t, []string{"1", "2"}, values, name)
			before.GetBody, req.GetBody = nil, nil // functions cannot be compared
			assert.Equal(t, &before, req, name)
		}
	}
}

// TestFault13_TheCallersRequestIsNotReadAfterReturn has a server that answers before it has read the body, while
// net/http goes on writing it; the race detector sees who reads what the test overwrites.
func TestFault13_TheCallersRequestIsNotReadAfterReturn(t *testing.T) {
	t.Parallel()
	for _, status := range []string{"200 OK", "400 Bad Request", "500 Odd"} {
		for name, send := range map[string]func(c *hermes.Client, req *http.Request){
			"SendMessage": func(c *hermes.Client, req *http.Request) { _, _ = c.SendMessage(req) },
			"Transport": func(c *hermes.Client, req *http.Request) {
				if resp, err := c.Transport().RoundTrip(req); err == nil {
					resp.Body.Close()
				}
			},
		} {
			t.Run(status+", "+name, func(t *testing.T) {
				t.Parallel()
				over := make(chan struct{})
				addr := tcpServer(t, func(_ int, conn net.Conn) {
					conn.Read(make([]byte, 1<<10))
					io.WriteString(conn, "HTTP/1.1 "+status+"\r\nContent-Length: 0\r\n\r\n")
					<-over
				})
				t.Cleanup(func() { close(over) })
				c := onSQLite(t, hermes.WithMaxRetryAttempts(1))
				for range 5 {
					body := bytes.Repeat([]byte("x"), 4<<20)
					req, err := http.NewRequest(http.MethodPost, "http://"+addr, bytes.NewReader(body))
					require.NoError(t, err)
					values := []string{"own"}
					req.Header["X-Own"] = values
					send(c, req)
					clear(body)
					values[0] = "changed"
					clear(req.Header)
					*req.URL = url.URL{}
					*req = http.Request{}
				}
			})
		}
	}
}

func TestFault14_BadInput(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(req *http.Request){
		"CR in a header":           func(r *http.Request) { r.Header["X-A"] = []string{"a\rb"} },
		"LF in a header":           func(r *http.Request) { r.Header["X-A"] = []string{"ok", "a\nHost: b"} },
		"NUL in a header":          func(r *http.Request) { r.Header["X-A"] = []string{"a\x00b"} },
		"DEL in a header":          func(r *http.Request) { r.Header["X-A"] = []string{"a\x7fb"} },
		"LF in a header's name":    func(r *http.Request) { r.Header["X-A\nB"] = []string{"a"} },
		"colon in a header's name": func(r *http.Request) { r.Header["X-A:"] = []string{"a"} },
		"space in a header's name": func(r *http.Request) { r.Header["X A"] = []string{"a"} },
		"empty header name":        func(r *http.Request) { r.Header[""] = []string{"a"} },
		"key not ASCII":            func(r *http.Request) { r.Header.Set("Idempotency-Key", "ü") },
		"key with a space":         func(r *http.Request) { r.Header.Set("Idempotency-Key", "a b") },
		"method with a space":      func(r *http.Request) { r.Method = "GE T" },
		"method with a CR":         func(r *http.Request) { r.Method = "GET\r" },
		"method above ASCII":       func(r *http.Request) { r.Method = "GÉT" },
		"CONNECT":                  func(r *http.Request) { r.Method = "CONNECT" },
		"no URL":                   func(r *http.Request) { r.URL = nil },
		"empty URL":                func(r *http.Request) { r.URL = &url.URL{} },
		"file:":                    func(r *http.Request) { r.URL = &url.URL{Scheme: "file", Path: "/etc/passwd"} },
		"ftp:":                     func(r *http.Request) { r.URL.Scheme = "ftp" },
		"HTTP: in upper case":      func(r *http.Request) { r.URL.Scheme = "HTTP" },
		"unregistered scheme":      func(r *http.Request) { r.URL.Scheme = "sqs" },
		"//host":                   func(r *http.Request) { r.URL.Scheme = "" },
		"no host":                  func(r *http.Request) { r.URL.Host = "" },
		"port without host":        func(r *http.Request) { r.URL.Host = ":80" },
		"host with a space":        func(r *http.Request) { r.URL.Host = "127.0.0.1 b" },
		"host with a CR LF":        func(r *http.Request) { r.URL.Host = "127.0.0.1\r\nX: y" },
		"host with a slash":        func(r *http.Request) { r.URL.Host = "127.0.0.1/x" },
		"host with userinfo":       func(r *http.Request) { r.URL.Host = "a@" + r.URL.Host },
		"host not UTF-8":           func(r *http.Request) { r.URL.Host = "\xff.test" },
		"host with two ports":      func(r *http.Request) { r.URL.Host = "a:1:2" },
		"bracket left open":        func(r *http.Request) { r.URL.Host = "[::1" },
		"port 99999":               func(r *http.Request) { r.URL.Host = "127.0.0.1:99999" },
		"port 0":                   func(r *http.Request) { r.URL.Host = "127.0.0.1:0" },
		"port missing":             func(r *http.Request) { r.URL.Host = "127.0.0.1:" },
		"port with a sign":         func(r *http.Request) { r.URL.Host = "127.0.0.1:+80" },
		"port not a number":        func(r *http.Request) { r.URL.Host = "127.0.0.1:http" },
		"opaque URL":               func(r *http.Request) { r.URL.Opaque = "//" + r.URL.Host + "/%2f" },
		"asterisk":                 func(r *http.Request) { r.Method, r.URL.Path = "OPTIONS", "*" },
		"relative path":            func(r *http.Request) { r.URL.Path = "a" },
		"query with a space":       func(r *http.Request) { r.URL.RawQuery = "a b" },
		"query with a LF":          func(r *http.Request) { r.URL.RawQuery = "a\nb" },
		"query with a NUL":         func(r *http.Request) { r.URL.RawQuery = "a\x00b" },
		"query with a fragment":    func(r *http.Request) { r.URL.RawQuery = "a#b" },
		"query not UTF-8":          func(r *http.Request) { r.URL.RawQuery = "\xff" },
		"Host with a LF":           func(r *http.Request) { r.Host = "a\nb" },
		"Host with a space":        func(r *http.Request) { r.Host = "a b" },
		"Host with a slash":        func(r *http.Request) { r.Host = "a/b" },
		"Host not UTF-8":           func(r *http.Request) { r.Host = "\xff" },
		"RequestURI":               func(r *http.Request) { r.RequestURI = "/" },
		"Trailer":                  func(r *http.Request) { r.Trailer = http.Header{"X-A": nil} },
	} {
		for sendName, send := range refusals {
			t.Run(name+", "+sendName, func(t *testing.T) {
				t.Parallel()
				c := onSQLite(t)
				r := newReceiver(t, statuses(503))
				req := post(t, r.URL, "")
				body := &watchedBody{Reader: strings.NewReader("hello")}
				req.Body, req.ContentLength = body, 5
				spoil(req)
				start := time.Now()
				require.ErrorIs(t, send(c, req), hermes.ErrInvalidMessage)
				soon(t, start)
				assert.Equal(t, 1, body.closed)
				assert.Empty(t, r.received())
				assert.Zero(t, count(t, c, hermes.Filter{}))
			})
		}
	}
	c := onSQLite(t)
	for _, send := range refusals {
		require.ErrorIs(t, send(c, nil), hermes.ErrInvalidMessage)
	}
	r := newReceiver(t, statuses(503))
	req := post(t, r.URL, "hello")
	req.Cancel = make(chan struct{})
	require.ErrorIs(t, refusals["SendMessage"](c, req), hermes.ErrInvalidMessage)
	assert.Empty(t, r.received())
}

func TestFault14_UserinfoIsSentAndShownNowhere(t *testing.T) {
	t.Parallel()
	const user, password, query, header, body = "Us3r-name", "p4ss/w@rd", "qu3ry-value", "h34der-value", "b0dy-value"
	var log bytes.Buffer
	var infos []any
	hooks := hermes.Hooks{
		AttemptStart: func(_ context.Context, i hermes.AttemptStartInfo) context.Context {
			infos = append(infos, i)
			return nil
		},
		AttemptDone: func(_ context.Context, i hermes.AttemptDoneInfo) { i.Err = nil; infos = append(infos, i) },
		Saved:       func(_ context.Context, i hermes.SavedInfo) { infos = append(infos, i) },
	}
	c := onSQLite(t, hermes.WithMaxRetryAttempts(1), hermes.WithHooks(hooks),
		hermes.WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))),
		hermes.WithPolicy(func(a hermes.Attempt) hermes.Outcome {
			if a.Number == 2 {
				panic(fmt.Sprint(a.Request.URL, a.Request.Header, a.Request.URL.User))
			}
			return hermes.DefaultPolicy(a)
		}))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, secret, ok := r.BasicAuth()
		assert.True(t, ok)
		assert.Equal(t, user, name)
		assert.Equal(t, password, secret)
		w.WriteHeader(503)
	}))
	defer server.Close()
	req := post(t, server.URL+"/path?q="+query, body)
	req.URL.User = url.UserPassword(user, password)
	req.Header.Set("X-Api-Key", header)
	resp, err := c.SendMessage(req)
	require.NoError(t, err)
	row := only(t, c)
	assert.Empty(t, row.Header.Get("Authorization"), "it is in the URL already")
	back, err := c.RetryMessage(t.Context(), row)
	require.NoError(t, err)

	shown := []string{log.String(), resp.Err().Error(), back.Err().Error(), only(t, c).LastError, row.String(), row.LogValue().String()}
	for _, value := range append(infos, row, resp.Err(), &hermes.NotSavedError{Message: row, Response: resp}) {
		shown = append(shown, fmt.Sprint(value), fmt.Sprintf("%v", value))
	}
	for _, text := range shown {
		for _, secret := range []string{user, password, url.UserPassword(user, password).String(), query, header, body} {
			assert.NotContains(t, text, secret)
		}
	}
	assert.Contains(t, resp.Err().Error(), "redacted@")
}
