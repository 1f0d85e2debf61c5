// Package wire sends one attempt of a message: one request, the redirects that keep its meaning, one answer. It never
// retries, and it keeps net/http from doing so behind its back.
package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
)

// Client is what attempts are sent with. It is not changed by them, and safe for concurrent use.
type Client struct {
	HTTP             *http.Client                 // its Transport, Jar and CheckRedirect are honoured, its Timeout is the caller's to honour
	Schemes          map[string]http.RoundTripper // by URL scheme, for what is not HTTP
	Sign             func(*http.Request) error    // nil, or adds what must not be stored
	IsSensitive      func(header string) bool     // tells, for a canonical name, that another origin must not get it
	MaxResponseBytes int64
}

// Message is what is the same over all attempts.
type Message struct {
	Template *http.Request // method, URL, Host; not modified
	Header   http.Header   // what is sent, beside what Key adds; not modified
	Body     []byte

	KeyName, KeyValue string // a header to add, by its canonical name; no name, no header

	first     http.Header // a copy that CopyHeader made, for the first request
	keyValues []string    // its place for the key
}

// Exchange is how an attempt ended.
type Exchange struct {
	Response *http.Response // the last answer, its body open; nil if there was none
	Err      error          // why there was no answer, or why a redirect was not followed
	Hops     int            // redirects followed
	Sent     *http.Request  // the last request, signature included: for knowing what an error's text must not show
}

// Do sends m once. With follow it follows redirects and uses the cookie jar, as an http.Client would; without, as a
// RoundTripper, it does neither.
func (c *Client) Do(ctx context.Context, m *Message, follow bool) Exchange {
	first := hop{req: m.request(ctx), body: m.Body, sign: c.Sign}
	if follow {
		return c.follow(m, first)
	}
	resp, err := c.send(first)
	return Exchange{Response: resp, Err: err, Sent: first.req}
}

// hop is one request of an attempt.
type hop struct {
	req  *http.Request
	body []byte
	sign func(*http.Request) error
}

// request is the message's own request, with no body yet.
func (m *Message) request(ctx context.Context) *http.Request {
	req := m.Template.WithContext(ctx)
	if req.Method == "" {
		req.Method = http.MethodGet
	}
	req.Cancel = nil //nolint:staticcheck // an http.Client with a Timeout sets it; the context it sets too is enough
	target := *m.Template.URL
	req.URL = &target
	req.Header = m.FullHeader()
	return req
}

// CopyHeader makes the first request's header, as it checks each field; key is the value of the one named keyName, if it
// is there.
func (m *Message) CopyHeader(keyName string, check func(name string, values []string) error) (key string, err error) {
	m.first = make(http.Header, len(m.Header)+1)
	all := make([]string, 1, len(m.Header)+1) // one slice for all values, as in Header.Clone; the key's comes first
	for name, values := range m.Header {
		if err := check(name, values); err != nil {
			return "", err
		}
		if isKey := len(name) == len(keyName) && strings.EqualFold(name, keyName); isKey && len(values) > 0 {
			key = values[0]
			continue
		}
		start := len(all)
		all = append(all, values...)
		m.first[name] = all[start:len(all):len(all)]
	}
	m.keyValues = all[:1:1]
	return key, nil
}

// FullHeader is a copy of the header with the key added, in place of any there was.
func (m *Message) FullHeader() http.Header {
	header, keyValues := m.first, m.keyValues
	m.first, m.keyValues = nil, nil
	if header == nil {
		keyValues = make([]string, 1)
		header = make(http.Header, len(m.Header)+1)
		for name, values := range m.Header {
			if len(name) != len(m.KeyName) || !strings.EqualFold(name, m.KeyName) {
				header[name] = slices.Clone(values)
			}
		}
	}
	if m.KeyName != "" {
		keyValues[0] = m.KeyValue
		header[m.KeyName] = keyValues
	}
	return header
}

// send gives h's request its body, its credentials and its signature, takes from net/http the means to send it twice,
// and sends it.
func (c *Client) send(h hop) (*http.Response, error) {
	req, body := h.req, h.body
	req.TransferEncoding = nil
	if user := req.URL.User; user != nil && req.Header.Get("Authorization") == "" {
		password, _ := user.Password()
		req.SetBasicAuth(user.Username(), password)
	}
	if h.sign != nil {
		setBody(req, body)
		req.GetBody = func() (io.ReadCloser, error) { return newBody(body), nil }
		method := req.Method
		if err := callSigner(h.sign, req); err != nil {
			return nil, err
		}
		req.Method = method
	}
	setBody(req, body)
	req.GetBody = nil
	if len(body) == 0 && !IsSafe(req.Method) && c.Schemes[req.URL.Scheme] == nil {
		disarmReplay(req.Header)
	}
	return c.roundTrip(req)
}

func setBody(req *http.Request, body []byte) {
	req.ContentLength = int64(len(body))
	req.Body = newBody(body)
}

// newBody returns a type net/http knows to be in memory: with any other it flushes the header in a write of its own.
func newBody(body []byte) io.ReadCloser {
	if len(body) == 0 {
		return http.NoBody
	}
	return io.NopCloser(bytes.NewReader(body))
}

// disarmReplay hides the idempotency key from net/http, which takes a request that has one for safe to re-send
// when a kept-alive connection dies, and does so unseen (net/http's Request.isReplayable). It looks the key up by its
// canonical name only; to a server the name's case means nothing. A request with a body needs no hiding: without
// GetBody net/http cannot re-send it, over HTTP/1.1 or HTTP/2.
func disarmReplay(header http.Header) {
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if values, ok := header[name]; ok {
			delete(header, name)
			header[strings.ToLower(name)] = values
		}
	}
}

// IsSafe tells whether method is safe in the sense of RFC 9110 section 9.2.1 (QUERY: RFC 10008).
func IsSafe(method string) bool {
	return slices.Contains([]string{"", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, "QUERY"}, method)
}

// roundTrip sends req through whatever is registered for its scheme, and holds it to the contract of a RoundTripper.
func (c *Client) roundTrip(req *http.Request) (resp *http.Response, err error) {
	defer func() {
		if r := recover(); r != nil {
			resp, err = nil, &PanicError{Value: r, Stack: debug.Stack()}
		}
	}()
	resp, err = c.roundTripper(req.URL).RoundTrip(req)
	switch {
	case err != nil:
		if resp != nil && resp.Body != nil {
			resp.Body.Close()
		}
		return nil, err
	case resp == nil:
		return nil, errors.New("the RoundTripper returned neither a response nor an error")
	case resp.Body == nil:
		resp.Body = http.NoBody
	case resp.StatusCode == http.StatusSwitchingProtocols:
		resp.Body.Close() // it is the bare connection, which no context ends any more
		resp.Body = http.NoBody
	}
	return resp, nil
}

func (c *Client) roundTripper(u *url.URL) http.RoundTripper {
	if rt := c.Schemes[u.Scheme]; rt != nil {
		return rt
	}
	if c.HTTP.Transport != nil {
		return c.HTTP.Transport
	}
	return http.DefaultTransport
}

func callSigner(sign func(*http.Request) error, req *http.Request) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &SignError{Err: &PanicError{Value: r, Stack: debug.Stack()}}
		}
	}()
	if err := sign(req); err != nil {
		return &SignError{Err: err}
	}
	return nil
}

// PanicError is a panic of a signer or a RoundTripper.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// SignError is a signer's error; the request was not sent.
type SignError struct{ Err error }

func (e *SignError) Error() string { return "signing the request: " + e.Err.Error() }

func (e *SignError) Unwrap() error { return e.Err }
