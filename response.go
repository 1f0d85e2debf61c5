package hermes

import (
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

func (o *outgoing) response(r *result) *Response {
	resp := &Response{
		StatusCode: r.status,
		Header:     r.header,
		Body:       r.body,
		Truncated:  r.truncated,
		Outcome:    r.outcome,
		Attempts:   r.attempts,
	}
	if r.outcome != Delivered {
		resp.failure = &SendError{
			Method:     o.method(),
			URL:        o.redactedURL(),
			StatusCode: r.status,
			Attempts:   r.attempts,
			Kind:       r.kind,
			Err:        r.err,
			text:       o.errorText(r.err),
		}
	}
	return resp
}
