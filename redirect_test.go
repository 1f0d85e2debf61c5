package hermes_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

// redirecting answers a path of the form "/status/rest" with a redirect to "/rest", and any other by other.
func redirecting(other http.HandlerFunc) func(int, http.ResponseWriter, *http.Request) {
	return func(_ int, w http.ResponseWriter, r *http.Request) {
		first, rest, _ := strings.Cut(r.URL.Path[1:], "/")
		status, err := strconv.Atoi(first)
		if err != nil {
			other(w, r)
			return
		}
		w.Header().Set("Location", "/"+rest)
		w.WriteHeader(status)
		io.WriteString(w, "redirect")
	}
}

func answers(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func TestFault03_WhatARedirectReSends(t *testing.T) {
	const followed, refused, data = "followed", "refused", "data"
	for _, test := range []struct {
		status   int
		method   string
		expected string
	}{
		{301, "GET", followed}, {301, "HEAD", followed}, {301, "", followed},
		{301, "POST", refused}, {301, "PUT", refused}, {301, "PATCH", refused}, {301, "DELETE", refused}, {301, "OPTIONS", refused},
		{302, "GET", followed}, {302, "HEAD", followed},
		{302, "POST", refused}, {302, "PUT", refused}, {302, "PATCH", refused}, {302, "DELETE", refused}, {302, "get", refused},
		{303, "POST", data}, {303, "PUT", data}, {303, "PATCH", data}, {303, "DELETE", data}, {303, "GET", followed}, {303, "HEAD", followed},
		{307, "GET", followed}, {307, "HEAD", followed}, {307, "POST", followed}, {307, "PUT", followed}, {307, "PATCH", followed},
		{307, "DELETE", followed}, {307, "OPTIONS", followed}, {307, "x-Odd", followed},
		{308, "GET", followed}, {308, "POST", followed}, {308, "PUT", followed}, {308, "PATCH", followed}, {308, "DELETE", followed},
	} {
		for name, body := range map[string]string{"with body": "hello", "without body": ""} {
			t.Run(strconv.Itoa(test.status)+" to "+test.method+" "+name, func(t *testing.T) {
				t.Parallel()
				r := newReceiver(t, redirecting(answers(200, "")))
				c := onSQLite(t)
				req := request(t, test.method, r.URL+"/"+strconv.Itoa(test.status)+"/end", body)
				req.Header.Set("Content-Type", "text/odd")
				req.Header.Set("X-Own", "1")
				req.Header.Set("Authorization", "Bearer t")
				resp, err := c.SendMessage(req)
				require.NoError(t, err)
				assert.Equal(t, 1, resp.Attempts)
				seen := r.received()
				if test.expected == refused {
					assert.Equal(t, test.status, resp.StatusCode)
					assert.True(t, resp.Invalid())
					assert.True(t, resp.Redirected())
					assert.Equal(t, "redirect", string(resp.Body))
					assert.Len(t, seen, 1)
					row := only(t, c)
					assert.False(t, row.Retryable)
					assert.Equal(t, hermes.KindRedirect, row.FailureKind)
					return
				}
				assert.True(t, resp.Succeeded(), "%v", resp.Err())
				assert.Zero(t, count(t, c, hermes.Filter{}))
				require.Len(t, seen, 2)
				want := seen[0]
				want.URL = "/end"
				if test.expected == data {
					want.Method = "GET"
				}
				if test.status == 303 {
					want.Body = ""
				}
				if test.status == 303 && (test.expected == data || body != "") {
					want.Header.Del("Content-Type")
					want.Header.Del("Content-Length")
				}
				assert.Equal(t, want, seen[1])
			})
		}
	}
}

func TestFault03_SeeOtherIsDeliveredOnlyWithItsData(t *testing.T) {
	t.Parallel()
	gone := refusing(t)
	for _, test := range []struct {
		name      string
		data      http.HandlerFunc
		delivered bool
		requests  int
	}{
		{"200", answers(200, "data"), true, 2},
		{"204", answers(204, ""), true, 2},
		{"404", answers(404, "data"), false, 2},
		{"500", answers(500, "data"), false, 2},
		{"302, then 200", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/x" {
				http.Redirect(w, r, "/x", http.StatusFound)
			}
		}, true, 3},
		{"loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, false, 2},
		{"no answer", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false, 0},
		{"no server", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, gone, http.StatusTemporaryRedirect) }, false, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
				r := newReceiver(t, redirecting(test.data))
				resp, err := c.SendMessage(post(t, r.URL+"/303/data", "hello"))
				require.NoError(t, err)
				seen := r.received()
				if test.requests > 0 {
					assert.Len(t, seen, test.requests)
					assert.Equal(t, 1, resp.Attempts)
				} else { // net/http may replay a GET that got no answer
					assert.Equal(t, len(seen)-1, resp.Attempts)
				}
				for _, get := range seen[1:] {
					assert.Equal(t, "GET", get.Method)
					assert.Empty(t, get.Body)
				}
				assert.Equal(t, test.delivered, resp.Succeeded())
				if test.delivered {
					assert.Zero(t, count(t, c, hermes.Filter{}))
					return
				}
				assert.Equal(t, 303, resp.StatusCode)
				assert.True(t, resp.Invalid())
				assert.Equal(t, "redirect", string(resp.Body))
				row := only(t, c)
				assert.Equal(t, 303, row.StatusCode)
				assert.Equal(t, hermes.KindRedirect, row.FailureKind)
				assert.False(t, row.Retryable)
			})
		})
	}
}

func TestFault04_HopsLoopsAndPlacesThatAreNotFollowed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, path, location string
		requests             int
		delivered            bool
	}{
		{name: "10 hops", path: strings.Repeat("/307", 10) + "/end", requests: 11, delivered: true},
		{name: "11 hops", path: strings.Repeat("/307", 11) + "/end", requests: 11},
		{name: "303 and 10 hops", path: "/303" + strings.Repeat("/307", 10) + "/end", requests: 11},
		{name: "itself", path: "/odd", location: "/odd", requests: 1},
		{name: "itself, by a fragment", path: "/odd", location: "#x", requests: 1},
		{name: "itself, by another host's name for it", path: "/odd", location: "HTTP://{host}/odd", requests: 1},
		{name: "back after a hop", path: "/307/odd", location: "/307/odd", requests: 2},
		{name: "ever further", path: "/odd", location: "/odd?{n}", requests: 11},
		{name: "not a URL", path: "/odd", location: "http://[::1", requests: 1},
		{name: "escape that is none", path: "/odd", location: "/%zz", requests: 1},
		{name: "no host", path: "/odd", location: "http:///x", requests: 1},
		{name: "file", path: "/odd", location: "file:///etc/passwd", requests: 1},
		{name: "mailto", path: "/odd", location: "mailto:a@b.test", requests: 1},
		{name: "javascript", path: "/odd", location: "javascript:alert(1)", requests: 1},
	} {
		for _, method := range []string{"GET", "POST"} {
			if strings.Contains(test.path, "303") && method == "GET" {
				continue
			}
			t.Run(test.name+" of "+method, func(t *testing.T) {
				t.Parallel()
				var n atomic.Int64
				r := newReceiver(t, redirecting(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path != "/odd" {
						return
					}
					location := strings.ReplaceAll(test.location, "{host}", r.Host)
					w.Header().Set("Location", strings.ReplaceAll(location, "{n}", strconv.Itoa(int(n.Add(1)))))
					w.WriteHeader(308)
				}))
				c := onSQLite(t)
				resp, err := c.SendMessage(request(t, method, r.URL+test.path, "hello"))
				require.NoError(t, err)
				assert.Equal(t, 1, resp.Attempts)
				assert.Len(t, r.received(), test.requests)
				assert.Equal(t, test.delivered, resp.Succeeded())
				if !test.delivered {
					assert.True(t, resp.Invalid())
					assert.True(t, resp.Redirected())
					row := only(t, c)
					assert.Equal(t, hermes.KindRedirect, row.FailureKind)
					assert.Equal(t, resp.StatusCode, row.StatusCode)
					assert.Equal(t, test.requests-1, row.AttemptLog[0].Hops)
				}
			})
		}
	}
}

func TestFault04_NotFromHTTPSToHTTP(t *testing.T) {
	t.Parallel()
	plain := newReceiver(t, statuses(200))
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, plain.URL, http.StatusTemporaryRedirect)
	}))
	t.Cleanup(secure.Close)
	for _, method := range []string{"GET", "POST"} {
		c := onSQLite(t, hermes.WithHTTPClient(secure.Client()))
		resp, err := c.SendMessage(request(t, method, secure.URL, "hello"))
		require.NoError(t, err)
		assert.True(t, resp.Invalid())
		assert.Equal(t, 307, resp.StatusCode)
		assert.Equal(t, hermes.KindRedirect, only(t, c).FailureKind)
	}
	assert.Empty(t, plain.received())
}

func TestFault04_FromHTTPToHTTPSWithoutCredentials(t *testing.T) {
	t.Parallel()
	var got atomic.Pointer[received]
	secure := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got.Store(&received{r.Method, r.RequestURI, r.Host, string(body), r.Header})
	}))
	t.Cleanup(secure.Close)
	plain := newReceiver(t, func(_ int, w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, secure.URL, 308) })
	c := onSQLite(t, hermes.WithHTTPClient(secure.Client()))
	req := post(t, plain.URL, "hello")
	req.Header.Set("Authorization", "Bearer t")
	resp, err := c.SendMessage(req)
	require.NoError(t, err)
	assert.True(t, resp.Succeeded())
	assert.Empty(t, got.Load().Header.Get("Authorization"))
	assert.Equal(t, "hello", got.Load().Body)
}

// TestFault04_AnotherOrigin has A redirect to B, which redirects back to A: what A got at first, neither of them gets
// then.
func TestFault04_AnotherOrigin(t *testing.T) {
	t.Parallel()
	var a, b *receiver
	b = newReceiver(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", a.URL+"/end?back")
		w.WriteHeader(307)
	})
	a = newReceiver(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/start":
			w.Header().Set("Location", "/second")
			w.WriteHeader(307)
		case "/second":
			w.Header().Set("Location", strings.Replace(b.URL, "//", "//evil:evil@", 1)+"/b?c=d")
			w.WriteHeader(307)
		}
	})
	secret := http.Header{
		"Authorization": {"Bearer t"}, "authorization": {"Bearer lower"}, "Cookie": {"a=b"}, "Referer": {"http://x.test/?secret"},
		"X-Api-Key": {"k"}, "X-Mine": {"m"}, "Proxy-Authorization": {"p"}, "Www-Authenticate": {"w"}, "Stripe-Signature": {"s"},
	}
	public := http.Header{"X-Own": {"1", "2"}, "Content-Type": {"text/odd"}, "User-Agent": {"me"}}
	c := onSQLite(t, hermes.WithSensitiveHeaders("x-mine"), hermes.WithRequestSigner(func(req *http.Request) error {
		body, err := io.ReadAll(req.Body)
		req.Header.Set("X-Signed", "of "+req.URL.Path+" "+string(body))
		req.URL.RawQuery = "signed"
		return err
	}))
	req := post(t, a.URL+"/start?token=1", "hello")
	req.URL.User = url.UserPassword("user", "password")
	for _, header := range []http.Header{secret, public} {
		for name, values := range header {
			req.Header[name] = values
		}
	}
	resp, err := c.SendMessage(req)
	require.NoError(t, err)
	assert.True(t, resp.Succeeded(), "%v", resp.Err())

	atA, atB := a.received(), b.received()
	require.Len(t, atA, 3)
	require.Len(t, atB, 1)
	assert.Equal(t, "of /start hello", atA[0].Header.Get("X-Signed"))
	assert.Equal(t, "of /second hello", atA[1].Header.Get("X-Signed"))
	assert.Equal(t, "/second?signed", atA[1].URL)
	assert.Equal(t, "/b?c=d", atB[0].URL)
	assert.Equal(t, "/end?back", atA[2].URL)
	for _, one := range atA[:2] {
		for name := range secret {
			assert.NotEmpty(t, one.Header.Get(name), name)
		}
	}
	key := atA[0].Header.Get("Idempotency-Key")
	assert.NotEmpty(t, key)
	for _, one := range append(atB, atA[2]) {
		for name := range secret {
			assert.Empty(t, one.Header.Values(name), name)
		}
		assert.Empty(t, one.Header.Values("X-Signed"))
	}
	for _, one := range append(atA, atB...) {
		assert.Equal(t, "POST", one.Method)
		assert.Equal(t, "hello", one.Body)
		assert.Equal(t, []string{key}, one.Header.Values("Idempotency-Key"))
		for name, values := range public {
			assert.Equal(t, values, one.Header.Values(name), name)
		}
	}
}

func TestFault04_NoRefererIsMade(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, redirecting(answers(200, "")))
	c := onSQLite(t)
	for _, path := range []string{"/302/end?secret", "/307/end?secret"} {
		_, err := c.SendMessage(request(t, "GET", r.URL+path, ""))
		require.NoError(t, err)
	}
	for _, one := range r.received() {
		assert.Empty(t, one.Header.Values("Referer"))
	}
}

// TestFault04_UserinfoWithinItsOrigin: the URL's credentials are the message's, also where a redirect within the
// origin names the whole URL.
func TestFault04_UserinfoWithinItsOrigin(t *testing.T) {
	t.Parallel()
	for name, location := range map[string]string{"relative": "/end", "absolute": "http://{host}/end"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t, func(_ int, w http.ResponseWriter, req *http.Request) {
				if user, password, _ := req.BasicAuth(); user != "user" || password != "password" {
					w.WriteHeader(401)
				} else if req.URL.Path == "/start" {
					w.Header().Set("Location", strings.ReplaceAll(location, "{host}", req.Host))
					w.WriteHeader(307)
				}
			})
			c := onSQLite(t)
			req := post(t, r.URL+"/start", "hello")
			req.URL.User = url.UserPassword("user", "password")
			resp, err := c.SendMessage(req)
			require.NoError(t, err)
			assert.True(t, resp.Succeeded(), "%v", resp.Err())
		})
	}
}

func TestFault04_TheHostOverrideIsOfRelativeLocations(t *testing.T) {
	t.Parallel()
	for location, keeps := range map[string]bool{
		"/a/end": true, "end": true, "../a/end": true, "?end": true, "//{host}/end": false, "http://{host}/end": false,
	} {
		t.Run(location, func(t *testing.T) {
			t.Parallel()
			var addr string
			r := newReceiver(t, func(n int, w http.ResponseWriter, _ *http.Request) {
				if n == 1 {
					w.Header().Set("Location", strings.ReplaceAll(location, "{host}", addr))
					w.WriteHeader(307)
				}
			})
			addr = r.Listener.Addr().String()
			c := onSQLite(t)
			req := post(t, r.URL+"/a/start", "hello")
			req.Host = "virtual.test"
			resp, err := c.SendMessage(req)
			require.NoError(t, err)
			assert.True(t, resp.Succeeded(), "%v", resp.Err())
			seen := r.received()
			require.Len(t, seen, 2)
			assert.Equal(t, "virtual.test", seen[0].Host)
			want := addr
			if keeps {
				want = "virtual.test"
			}
			assert.Equal(t, want, seen[1].Host)
		})
	}
}
