package wire

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// body is a response's, which notes whether it was closed.
type body struct {
	io.Reader
	closed bool
}

func (b *body) Close() error {
	b.closed = true
	return nil
}

func message(t *testing.T, method, target, content string) *Message {
	t.Helper()
	req, err := http.NewRequest(method, target, nil)
	require.NoError(t, err)
	return &Message{Template: req, Header: req.Header, Body: []byte(content), KeyName: "Idempotency-Key", KeyValue: "key"}
}

func client(rt roundTripper) *Client {
	return &Client{HTTP: &http.Client{Transport: rt}, IsSensitive: func(string) bool { return false }, MaxResponseBytes: 100}
}

func TestARoundTripperIsHeldToItsContract(t *testing.T) {
	t.Parallel()
	failure := errors.New("failure")
	kept := &body{Reader: strings.NewReader("x")}
	for name, test := range map[string]struct {
		resp   *http.Response
		err    error
		fails  bool
		closed bool
	}{
		"neither":            {fails: true},
		"both":               {resp: &http.Response{StatusCode: 200, Body: kept}, err: failure, fails: true, closed: true},
		"both, without body": {resp: &http.Response{StatusCode: 200}, err: failure, fails: true},
		"error":              {err: failure, fails: true},
		"no body":            {resp: &http.Response{StatusCode: 200}},
		"no header":          {resp: &http.Response{StatusCode: 307, Body: http.NoBody}},
	} {
		for _, follow := range []bool{true, false} {
			kept.closed = false
			c := client(func(*http.Request) (*http.Response, error) { return test.resp, test.err })
			ex := c.Do(t.Context(), message(t, "POST", "http://a.test/", "hello"), follow)
			assert.Equal(t, test.fails, ex.Response == nil, name)
			assert.Equal(t, test.fails, ex.Err != nil, name)
			assert.Equal(t, test.closed, kept.closed, name)
			if test.err != nil {
				require.ErrorIs(t, ex.Err, test.err, name)
			}
			if !test.fails {
				content, truncated, err := ReadBody(ex.Response, 10)
				require.NoError(t, err, name)
				assert.False(t, truncated, name)
				assert.Empty(t, content, name)
			}
		}
	}
}

func TestFault02_TheConnectionOfASwitchedProtocolIsClosed(t *testing.T) {
	t.Parallel()
	bare := &body{Reader: iotest.ErrReader(errors.New("must not be read"))}
	c := client(func(*http.Request) (*http.Response, error) { return &http.Response{StatusCode: 101, Body: bare}, nil })
	ex := c.Do(t.Context(), message(t, "POST", "http://a.test/", ""), false)
	require.NoError(t, ex.Err)
	assert.True(t, bare.closed)
	_, truncated, err := ReadBody(ex.Response, 10)
	require.NoError(t, err)
	assert.False(t, truncated)
}

func TestIsSafe(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"", "GET", "HEAD", "OPTIONS", "TRACE", "QUERY"} {
		assert.True(t, IsSafe(method), method)
	}
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "CONNECT", "get", "PROPFIND", "LINK"} {
		assert.False(t, IsSafe(method), method)
	}
}

// TestFault07_WhatArmsAReplayIsTaken: no GetBody, and no key under the names net/http looks for where there is no body.
func TestFault07_WhatArmsAReplayIsTaken(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		method, url, body string
		hidden            bool
	}{
		"POST with a body":          {"POST", "http://a.test/", "hello", false},
		"POST without a body":       {"POST", "http://a.test/", "", true},
		"DELETE":                    {"DELETE", "https://a.test/", "", true},
		"GET":                       {"GET", "http://a.test/", "", false},
		"QUERY":                     {"QUERY", "http://a.test/", "", false},
		"DELETE of another scheme":  {"DELETE", "sqs://queue/", "", false},
		"POST of another scheme":    {"POST", "sqs://queue/", "hello", false},
		"DELETE, following nothing": {"DELETE", "http://a.test/", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var sent *http.Request
			rt := roundTripper(func(req *http.Request) (*http.Response, error) {
				sent = req
				return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
			})
			c := client(rt)
			c.Schemes = map[string]http.RoundTripper{"sqs": rt}
			c.Sign = func(req *http.Request) error {
				require.NotNil(t, req.GetBody, "a signer may read the body")
				content, err := io.ReadAll(req.Body)
				assert.Equal(t, test.body, string(content))
				return err
			}
			m := message(t, test.method, test.url, test.body)
			m.Header["X-Idempotency-Key"] = []string{"own"}
			require.NoError(t, c.Do(t.Context(), m, true).Err)
			assert.Nil(t, sent.GetBody)
			content, err := io.ReadAll(sent.Body)
			require.NoError(t, err)
			assert.Equal(t, test.body, string(content))
			for canonical, value := range map[string]string{"Idempotency-Key": "key", "X-Idempotency-Key": "own"} {
				under, other := canonical, strings.ToLower(canonical)
				if test.hidden {
					under, other = other, under
				}
				assert.Equal(t, []string{value}, sent.Header[under], under)
				assert.NotContains(t, sent.Header, other)
			}
			assert.Equal(t, http.Header{"X-Idempotency-Key": {"own"}}, m.Header, "the message's own is not modified")
		})
	}
}

func TestReadBody(t *testing.T) {
	t.Parallel()
	failure := errors.New("failure")
	text := strings.Repeat("0123456789", 20_000)
	for name, test := range map[string]struct {
		reader    io.Reader
		length    int64
		limit     int64
		want      int
		truncated bool
		err       error
	}{
		"empty":                                {strings.NewReader(""), 0, 10, 0, false, nil},
		"no limit to speak of":                 {strings.NewReader(text), -1, math.MaxInt64, len(text), false, nil},
		"no room":                              {strings.NewReader("x"), 1, 0, 0, true, nil},
		"no room, and none needed":             {strings.NewReader(""), 0, 0, 0, false, nil},
		"exact":                                {strings.NewReader(text[:10]), 10, 10, 10, false, nil},
		"exact, length unknown":                {iotest.OneByteReader(strings.NewReader(text[:10])), -1, 10, 10, false, nil},
		"a byte too long":                      {strings.NewReader(text[:11]), 11, 10, 10, true, nil},
		"a byte too long, end with it":         {iotest.DataErrReader(strings.NewReader(text[:11])), -1, 10, 10, true, nil},
		"long":                                 {strings.NewReader(text), int64(len(text)), 1 << 20, len(text), false, nil},
		"promises more than memory":            {strings.NewReader(text[:5]), math.MaxInt64, math.MaxInt64, 5, false, nil},
		"promises less":                        {strings.NewReader(text[:5]), 1, 10, 5, false, nil},
		"breaks off":                           {io.MultiReader(strings.NewReader(text[:5]), iotest.ErrReader(failure)), 10, 10, 5, true, failure},
		"breaks off behind the limit, unknown": {io.MultiReader(strings.NewReader(text[:15]), iotest.ErrReader(failure)), 20, 10, 10, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &body{Reader: test.reader}
			content, truncated, err := ReadBody(&http.Response{Body: b, ContentLength: test.length}, test.limit)
			require.ErrorIs(t, err, test.err)
			assert.Equal(t, test.truncated, truncated)
			assert.True(t, string(content) == text[:test.want])
			assert.True(t, b.closed)
		})
	}
}

// TestTrace gives the hooks what HTTP/1.1 and HTTP/2 give them.
func TestTrace(t *testing.T) {
	t.Parallel()
	const ask, get, reuse, write = "ask", "get", "reuse", "write"
	for name, test := range map[string]struct {
		events                []string
		sent, notSent, reused bool
		requests              int
	}{
		"a RoundTripper of one's own":             {nil, false, false, false, 1},
		"no connection":                           {[]string{ask}, false, true, false, 1},
		"a connection":                            {[]string{ask, get}, true, false, false, 1},
		"one used before":                         {[]string{ask, reuse}, true, false, true, 1},
		"HTTP/2, asked for at each layer":         {[]string{ask, ask, get}, true, false, false, 1},
		"re-sent":                                 {[]string{ask, reuse, ask, get}, true, false, false, 2},
		"re-sent, but without a connection":       {[]string{ask, reuse, ask}, false, true, false, 1},
		"HTTP/2 about to re-send what it may not": {[]string{ask, reuse, write, ask, get}, true, false, true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var trace Trace
			trace.Begin(context.Background(), true) // of an attempt before
			ctx := trace.Begin(t.Context(), true)
			hooks := httptrace.ContextClientTrace(ctx)
			for _, event := range test.events {
				switch event {
				case ask:
					hooks.GetConn("")
				case get, reuse:
					hooks.GotConn(httptrace.GotConnInfo{Reused: event == reuse})
				case write:
					hooks.WroteHeaderField(":method", nil)
				}
			}
			assert.Equal(t, test.sent, trace.Sent())
			assert.Equal(t, test.notSent, trace.NotSent())
			assert.Equal(t, test.reused, trace.Reused())
			assert.Equal(t, test.requests, trace.Requests(0))
			prevented := strings.Contains(name, "may not")
			assert.Equal(t, prevented, ctx.Err() != nil)
			assert.Equal(t, prevented, errors.Is(trace.Explain(context.Canceled), ErrReplay))
		})
	}
}

func TestSameOrigin(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b string
		same bool
	}{
		{"http://a.test/", "http://a.test/b?c", true},
		{"http://a.test/", "http://A.TEST:80/", true},
		{"https://a.test:443/", "https://a.test/", true},
		{"http://user@a.test/", "http://a.test/", true},
		{"http://a.test/", "https://a.test/", false},
		{"http://a.test/", "http://a.test:81/", false},
		{"http://a.test/", "http://b.a.test/", false},
		{"http://a.test/", "http://a.test.evil.test/", false},
		{"http://[::1]/", "http://[::1]:80/", true},
		{"http://127.0.0.1/", "http://localhost/", false},
	} {
		a, err := url.Parse(test.a)
		require.NoError(t, err)
		b, err := url.Parse(test.b)
		require.NoError(t, err)
		assert.Equal(t, test.same, sameOrigin(a, b), "%s %s", a, b)
		assert.Equal(t, test.same, sameOrigin(b, a), "%s %s", b, a)
	}
}
