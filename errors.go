package hermes

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hermeshttp/hermes/internal/cursor"
	"github.com/hermeshttp/hermes/internal/schema"
)

// Errors that calls return, to be matched with errors.Is.
var (
	// ErrInvalidOption: New or NewMonitor was given a value it cannot work with.
	ErrInvalidOption = errors.New("hermes: invalid option")
	// ErrInvalidMessage: a request that cannot be sent as it is, or not a second time. Nothing was sent or saved.
	ErrInvalidMessage = errors.New("hermes: invalid message")
	// ErrBodyTooLarge: the body is longer than WithMaxBodyBytes. Nothing was sent or saved.
	ErrBodyTooLarge = errors.New("hermes: body too large")
	// ErrNotSaved: the message was not delivered, and the store did not confirm that it has it. See NotSavedError.
	ErrNotSaved = errors.New("hermes: message neither delivered nor saved")
	// ErrNotFound: there is no row with this ID; often because it has been delivered.
	ErrNotFound = errors.New("hermes: no such message")
	// ErrNotRetryable: the row is invalid or exhausted; see Reschedule.
	ErrNotRetryable = errors.New("hermes: message is not retryable")
	// ErrClaimed: another instance, or another call, holds the row at the moment.
	ErrClaimed = errors.New("hermes: message is claimed")
	// ErrClaimLost: the claim ran out and the row was taken by another, or is gone.
	ErrClaimLost = errors.New("hermes: claim lost")
	// ErrShutdown: Shutdown was called.
	ErrShutdown = errors.New("hermes: client is shut down")
	// ErrUnboundedFilter: a filter without any condition where that would touch the whole table; see Everything.
	ErrUnboundedFilter = errors.New("hermes: filter has no condition")
	// ErrUnreadable: a row's content cannot be read back.
	ErrUnreadable = errors.New("hermes: message is unreadable")

	// ErrInvalidCursor: a text that is no Cursor.
	ErrInvalidCursor error = fmt.Errorf("hermes: invalid cursor: %w", cursor.ErrMalformed)
	// ErrSchemaOutdated: the table is missing or of an older version; call Migrate.
	ErrSchemaOutdated = schema.ErrOutdated
)

// SendError tells that a message was not delivered, and why. Its text shows neither header values nor the body nor the
// URL's userinfo and query; Err, which Unwrap returns, is unredacted.
type SendError struct {
	Method, URL     string // URL redacted
	StatusCode      int    // of the last attempt; 0: no answer
	Attempts        int    // by this call
	Kind            FailureKind
	FailedMessageID string // the message's row; "" if it was not saved
	Err             error  // what the last attempt failed with, if it was not a status

	text string // of Err, redacted
}

// Error implements error.
func (e *SendError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "hermes: %s %s: ", e.Method, e.URL)
	switch {
	case e.StatusCode != 0 && e.text != "":
		fmt.Fprintf(&b, "status %d: %s", e.StatusCode, e.text)
	case e.StatusCode != 0:
		fmt.Fprintf(&b, "status %d", e.StatusCode)
	case e.text != "":
		fmt.Fprintf(&b, "%s (%s)", e.text, e.Kind)
	default:
		b.WriteString(string(e.Kind))
	}
	if e.Attempts > 1 {
		fmt.Fprintf(&b, " (attempt %d)", e.Attempts)
	}
	if e.FailedMessageID != "" {
		b.WriteString(", saved as " + e.FailedMessageID)
	}
	return b.String()
}

// Timeout tells whether the last attempt ran out of time: its own, or its context's. It is what a net.Error has.
func (e *SendError) Timeout() bool { return e.Err != nil && isTimeout(e.Err) }

// Unwrap returns Err.
func (e *SendError) Unwrap() error { return e.Err }

// NotSavedError is the one way to lose a message: it was not delivered, and the store did not say that it has it
// (it may, if its answer got lost). Message is the whole message, which MarshalBinary makes bytes of and Save takes
// back into the table, once, however often it is called. It matches ErrNotSaved.
type NotSavedError struct {
	Message  *FailedMessage
	Response *Response // how sending it ended
	Err      error     // what the store answered

	text string // of Err, redacted
}

// Error implements error. Its text shows what a SendError's does.
func (e *NotSavedError) Error() string {
	return fmt.Sprintf("%s: %s %s, id %s: %s", ErrNotSaved, e.Message.Method, e.Message.RedactedURL(), e.Message.ID, e.text)
}

// Unwrap makes the error match ErrNotSaved, what the store answered, and what sending ended with.
func (e *NotSavedError) Unwrap() []error {
	errs := []error{ErrNotSaved, e.Err}
	if err := e.Response.Err(); err != nil {
		errs = append(errs, err)
	}
	return errs
}
