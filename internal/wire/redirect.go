package wire

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
)

// MaxHops is how many redirects one attempt follows.
const MaxHops = 10

// RedirectError tells why a redirect was not followed.
type RedirectError struct {
	Reason string
	Err    error // what a CheckRedirect returned, or nil
}

func (e *RedirectError) Error() string { return "redirect not followed: " + e.Reason }

func (e *RedirectError) Unwrap() error { return e.Err }

// chain is the state of an attempt that is being redirected.
type chain struct {
	client   *Client
	message  *Message
	requests []*http.Request // those that were answered with a redirect, the first being the message's own
	hops     int             // redirects followed
	sent     *http.Request   // the last one
	foreign  bool            // another origin was visited: from then on no credentials
	seeOther *http.Response  // the 303 that answered a message which is not safe, its body in memory
}

// follow sends first and what it is redirected to, until an answer is final.
func (c *Client) follow(m *Message, first hop) (ex Exchange) {
	ch := &chain{client: c, message: m}
	defer func() {
		if r := recover(); r != nil { // of the user's Jar or CheckRedirect
			ex = ch.broke(&PanicError{Value: r, Stack: debug.Stack()})
		}
	}()
	for h := &first; ; {
		ch.sent = h.req
		resp, err := ch.send(*h)
		if err != nil {
			return ch.broke(err)
		}
		next, refused := ch.next(h.req, resp)
		if next != nil {
			refused = ch.leave(h.req, resp, next.req)
		}
		if next == nil || refused != nil {
			return ch.end(resp, refused)
		}
		h = next
		ch.hops++
	}
}

// send is a hop: the jar's cookies there and back around a round trip.
func (ch *chain) send(h hop) (*http.Response, error) {
	jar := ch.client.HTTP.Jar
	if jar == nil {
		return ch.client.send(h)
	}
	for _, cookie := range jar.Cookies(h.req.URL) {
		h.req.AddCookie(cookie)
	}
	resp, err := ch.client.send(h)
	if err == nil {
		keepCookies(jar, h.req.URL, resp.Cookies())
	}
	return resp, err
}

// keepCookies survives the jar's panic: the answer that the cookies came with can be that of a delivery.
func keepCookies(jar http.CookieJar, u *url.URL, cookies []*http.Cookie) {
	defer func() { _ = recover() }()
	if len(cookies) > 0 {
		jar.SetCookies(u, cookies)
	}
}

// broke makes the exchange of a hop that got no answer.
func (ch *chain) broke(err error) Exchange {
	if ch.seeOther == nil {
		return Exchange{Err: err, Hops: ch.hops, Sent: ch.sent}
	}
	return Exchange{Response: ch.seeOther, Err: &RedirectError{Reason: "303, then no answer", Err: err}, Hops: ch.hops, Sent: ch.sent}
}

// end makes the exchange of a final answer. After a 303 the message counts as processed only if the data it pointed
// to could be had; otherwise its answer is the 303 itself.
func (ch *chain) end(resp *http.Response, refused error) Exchange {
	if ch.seeOther == nil || resp.StatusCode/100 == 2 {
		return Exchange{Response: resp, Err: refused, Hops: ch.hops, Sent: ch.sent}
	}
	resp.Body.Close()
	reason := "303, then status " + strconv.Itoa(resp.StatusCode)
	return Exchange{Response: ch.seeOther, Err: &RedirectError{Reason: reason, Err: refused}, Hops: ch.hops, Sent: ch.sent}
}

// next returns what resp asks for. It returns nil if resp is final, with a RedirectError if it asked for what must not
// be sent.
func (ch *chain) next(req *http.Request, resp *http.Response) (*hop, error) {
	location := resp.Header.Get("Location")
	method, body, reason := ch.redirected(req, resp.StatusCode)
	if location == "" || method == "" && reason == "" {
		return nil, nil
	}
	if reason != "" {
		return nil, &RedirectError{Reason: reason}
	}
	target, err := req.URL.Parse(location)
	if err != nil {
		return nil, &RedirectError{Reason: "its Location is not a URL"}
	}
	ch.requests = append(ch.requests, req)
	if reason := ch.refuse(req, method, target); reason != "" {
		return nil, &RedirectError{Reason: reason}
	}
	return ch.hopTo(target, method, body, resp, isRelative(location)), nil
}

// isRelative tells whether a Location, which is a URL, names a place on the host it came from.
func isRelative(location string) bool {
	u, err := url.Parse(location)
	return err == nil && u.Scheme == "" && u.Host == ""
}

// redirected tells with which method and body a status has a request repeated; a reason, that it would not be the same
// message; neither, that the status is no redirect (RFC 9110 section 15.4).
func (ch *chain) redirected(req *http.Request, status int) (method string, body []byte, reason string) {
	isRead := req.Method == http.MethodGet || req.Method == http.MethodHead
	switch status {
	case http.StatusMovedPermanently, http.StatusFound:
		if !isRead {
			return "", nil, "a 301 or 302 would turn the message into an empty GET"
		}
		return req.Method, ch.bodyOf(req), ""
	case http.StatusSeeOther:
		if isRead {
			return req.Method, nil, ""
		}
		return http.MethodGet, nil, ""
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return req.Method, ch.bodyOf(req), ""
	}
	return "", nil, ""
}

func (ch *chain) bodyOf(req *http.Request) []byte {
	if req.ContentLength == 0 {
		return nil // a 303 on the way dropped it, or there was none
	}
	return ch.message.Body
}

func (ch *chain) refuse(req *http.Request, method string, target *url.URL) string {
	switch {
	case len(ch.requests) > MaxHops:
		return "more than 10"
	case target.Scheme == "http" && req.URL.Scheme == "https":
		return "from https to http"
	case target.Scheme != "http" && target.Scheme != "https", target.Host == "":
		return "its Location is not an HTTP URL"
	}
	if ch.client.HTTP.Jar != nil {
		return "" // the same URL with another cookie is another request
	}
	for _, sent := range ch.requests {
		if sent.Method == method && sameTarget(sent.URL, target) {
			return "a loop"
		}
	}
	return ""
}

func sameTarget(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && a.Host == b.Host && a.EscapedPath() == b.EscapedPath() && a.RawQuery == b.RawQuery
}

// hopTo makes the request to target. Once another origin has been visited, no hop gets credentials or a signature,
// not even back at the first: whoever answered there chose where this one goes.
func (ch *chain) hopTo(target *url.URL, method string, body []byte, cause *http.Response, keepsHost bool) *hop {
	first := ch.requests[0]
	req := first.WithContext(first.Context())
	req.Method = method
	req.URL = target
	req.Header = ch.message.FullHeader()
	req.Response = cause
	if method != first.Method || len(body) != len(ch.message.Body) {
		dropBodyHeaders(req.Header)
	}
	ch.foreign = ch.foreign || !sameOrigin(ch.message.Template.URL, target)
	if ch.foreign {
		target.User = nil
		ch.stripCredentials(req.Header)
		req.Host = ""
		return &hop{req: req, body: body}
	}
	if target.User == nil {
		target.User = ch.message.Template.URL.User
	}
	if !keepsHost {
		req.Host = ""
	}
	return &hop{req: req, body: body, sign: ch.client.Sign}
}

// leave checks with the user's CheckRedirect and makes resp's connection free for the next hop.
func (ch *chain) leave(req *http.Request, resp *http.Response, next *http.Request) error {
	if check := ch.client.HTTP.CheckRedirect; check != nil {
		err := check(next, ch.requests)
		if errors.Is(err, http.ErrUseLastResponse) {
			return &RedirectError{Reason: "the client's CheckRedirect uses the last response", Err: err}
		}
		if err != nil {
			return &RedirectError{Reason: "the client's CheckRedirect refused", Err: err}
		}
	}
	if resp.StatusCode == http.StatusSeeOther && !IsSafe(req.Method) {
		kept := *resp
		body, _, _ := ReadBody(resp, ch.client.MaxResponseBytes)
		kept.Body = newBody(body)
		ch.seeOther = &kept
		return nil
	}
	io.CopyN(io.Discard, resp.Body, 2<<10) // little enough to read that the connection can be used again
	resp.Body.Close()
	return nil
}

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return map[string]string{"http": "80", "https": "443"}[u.Scheme]
}

func (ch *chain) stripCredentials(header http.Header) {
	for name := range header {
		if ch.client.IsSensitive(http.CanonicalHeaderKey(name)) {
			delete(header, name)
		}
	}
}

func dropBodyHeaders(header http.Header) {
	for name := range header {
		if strings.HasPrefix(http.CanonicalHeaderKey(name), "Content-") {
			delete(header, name)
		}
	}
}
