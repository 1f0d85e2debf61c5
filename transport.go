package hermes

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/hermeshttp/hermes/internal/wire"
)

// Transport returns a RoundTripper for code that brings its own http.Client, such as somebody's SDK: what goes through
// it is retried like what SendMessage sends, and saved if it fails for good. Switch off the retries of what is above it.
//
// It obeys the contract of http.RoundTripper, and differs from SendMessage in this: A received answer is never an error,
// also if the message was saved; the one exception is *NotSavedError. Without an answer the error is a *SendError that
// names the row. Redirects are left to the http.Client above, except that a message that would be turned into another
// (a POST answered 301 or 302), or that cannot be followed, is saved as invalid; a 303 counts as processed. What the
// client above makes of a redirect, an error of its CheckRedirect say, is not seen here; what it sends on is a message of
// its own, with the same key. Request.Cancel is ignored. The body of a 2xx answer is not bounded, and the attempt's timeout
// ends with its header. Only methods that are not safe become rows: a HEAD that ends in 404 is no lost message. Hooks
// report a message's ID in every case, with the request's context.
func (c *Client) Transport(opts ...SendOption) http.RoundTripper {
	return &transport{client: c, opts: slices.Clone(opts)}
}

type transport struct {
	client *Client
	opts   []SendOption
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	c := t.client
	o, err := c.newOutgoing(req, t.optionsFor(req))
	if err != nil {
		return nil, err
	}
	o.stream = true
	o.config.noSave = o.config.noSave || wire.IsSafe(req.Method)
	ctx := req.Context()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	defer c.end(o)
	r, err := c.deliver(ctx, o)
	if err != nil {
		return nil, err
	}
	if r.open != nil && r.Outcome != Delivered {
		r.open.Request = req
		if isSentOn(r.StatusCode) {
			r.open.Request = o.sent // it has the key, for the next hop
		}
		if o.tried != nil {
			c.settleRow(ctx, o, r)
		}
		return r.open, nil // a redirect for the client above
	}
	resp, err := c.settle(ctx, o, r)
	switch {
	case r.open != nil:
		r.open.Request = req
		return r.open, nil
	case err != nil && !isSendError(err):
		return nil, err
	case r.StatusCode == 0:
		return nil, resp.Err()
	}
	return bufferedResponse(req, resp), nil
}

// optionsFor gives a message that the http.Client above sends on, as a 307 or 308 asks, the key that it had before.
func (t *transport) optionsFor(req *http.Request) []SendOption {
	if req == nil || req.Response == nil {
		return t.opts
	}
	cause := req.Response
	if cause.Request == nil || req.Method != cause.Request.Method {
		return t.opts
	}
	key := valueOf(cause.Request.Header, t.client.idempotencyHeader)
	if key == "" {
		return t.opts
	}
	return append(slices.Clone(t.opts), IdempotencyKey(key))
}

// valueOf finds a header also under a name that is not canonical, as net/http sends it.
func valueOf(header http.Header, name string) string {
	for have, values := range header {
		if len(values) > 0 && strings.EqualFold(have, name) {
			return values[0]
		}
	}
	return ""
}

// redirects is how often the http.Client above has followed a redirect to come to req.
func redirects(req *http.Request) int {
	n := 0
	for req.Response != nil && req.Response.Request != nil {
		n++
		req = req.Response.Request
	}
	return n
}

// clientsMaxRequests is how many requests an http.Client makes before it gives up redirects, unless told otherwise.
const clientsMaxRequests = 10

// isSentOn tells of a redirect that has the same message sent elsewhere.
func isSentOn(status int) bool {
	return status == http.StatusTemporaryRedirect || status == http.StatusPermanentRedirect
}

func isSendError(err error) bool {
	_, ok := err.(*SendError) //nolint:errorlint // settle's own, and NotSavedError has one inside
	return ok
}

// isForClient tells whether an answer is a redirect that the http.Client above will follow without changing the
// message, or any redirect of a message that is not worth saving.
func isForClient(o *outgoing, resp *http.Response) bool {
	if resp.StatusCode < 300 || resp.StatusCode > 399 {
		return false
	}
	if wire.IsSafe(o.Template.Method) {
		return true
	}
	if resp.Header.Get("Location") == "" || redirects(o.Template)+1 >= clientsMaxRequests {
		return false
	}
	if resp.StatusCode == http.StatusSeeOther {
		return true // processed; its data are elsewhere
	}
	_, err := o.url().Parse(resp.Header.Get("Location"))
	canRewind := o.Template.GetBody != nil || o.Template.Body == nil || o.Template.Body == http.NoBody
	return isSentOn(resp.StatusCode) && err == nil && canRewind
}

// streamedBody ends the attempt when its reader is done with it.
type streamedBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *streamedBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

// bufferedResponse is a failed message's last answer for an http.Client.
func bufferedResponse(req *http.Request, r *Response) *http.Response {
	header := r.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	body := io.Reader(bytes.NewReader(r.Body))
	length := int64(len(r.Body))
	if r.Truncated {
		body, length = io.MultiReader(body, brokenOff{}), -1
	}
	return &http.Response{
		Status:        strconv.Itoa(r.StatusCode) + " " + http.StatusText(r.StatusCode),
		StatusCode:    r.StatusCode,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        header,
		Body:          io.NopCloser(body),
		ContentLength: length,
		Request:       req,
	}
}

// brokenOff ends a body of which only the beginning is there.
type brokenOff struct{}

func (brokenOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
