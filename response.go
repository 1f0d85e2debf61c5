package hermes

import (
	"fmt"
	"log/slog"
	"net/http"
)

// Response is how sending a message ended. It holds no open connection.
type Response struct {
	StatusCode      int         // of the last attempt; 0: it got no answer
	Header          http.Header // of the last attempt's answer; nil if there was none
	Body            []byte      // of the last attempt's answer, bounded by WithMaxResponseBytes
	Truncated       bool        // the body was longer, or broke off
	Outcome         Outcome     // what the policy made of it
	Attempts        int         // by this call; redirect hops are not attempts
	FailedMessageID string      // the row's ID; "" unless the message is a row

	failure *SendError // nil if delivered
}

// Succeeded tells whether the message was delivered.
func (r *Response) Succeeded() bool { return r.Outcome == Delivered }

// Failed is the opposite of Succeeded. Whether the message will be retried, Invalid tells.
func (r *Response) Failed() bool { return !r.Succeeded() }

// Invalid tells whether the message cannot succeed as it is, and so will not be retried by itself.
func (r *Response) Invalid() bool { return r.Outcome == Invalid }

// Redirected tells whether the last answer was a redirect that was not followed.
func (r *Response) Redirected() bool { return r.StatusCode >= 300 && r.StatusCode <= 399 }

// Err returns nil if the message was delivered, and otherwise a *SendError that tells why not.
func (r *Response) Err() error {
	if r == nil || r.failure == nil {
		return nil
	}
	failure := *r.failure
	failure.FailedMessageID = r.FailedMessageID
	return &failure
}

// String shows no header value and no body, which may repeat the request's: also where fmt prints a response with %v.
func (r Response) String() string {
	text := fmt.Sprintf("%s, status %d, attempts %d", r.Outcome, r.StatusCode, r.Attempts)
	if r.FailedMessageID != "" {
		text += ", saved as " + r.FailedMessageID
	}
	return text
}

// GoString is String, for %#v.
func (r Response) GoString() string { return r.String() }

// LogValue implements slog.LogValuer. It shows what String does.
func (r Response) LogValue() slog.Value { return slog.StringValue(r.String()) }

// response is r's, complete.
func (o *outgoing) response(r *result) *Response {
	if r.Outcome != Delivered {
		r.failure = &SendError{
			Method:     o.method(),
			URL:        o.redactedURL(),
			StatusCode: r.StatusCode,
			Attempts:   r.Attempts,
			Kind:       r.kind,
			Err:        r.err,
			text:       o.errorText(r.err),
		}
	}
	return r.Response
}
