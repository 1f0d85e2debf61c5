package hermes

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/hermeshttp/hermes/internal/headertext"
)

// Save puts a message into the table that is not there, the way back for NotSavedError.Message. A message whose ID is
// there already is left as it is, and that is no error. It must have an ID and be fit to be sent: otherwise
// ErrInvalidMessage. A zero CreatedAt or UpdatedAt means now.
//
// It is tried within WithSaveTimeout; ctx can end it earlier.
func (c *Client) Save(ctx context.Context, msg *FailedMessage) error {
	if msg == nil {
		return invalid("message", "nil")
	}
	if err := msg.check(); err != nil {
		return err
	}
	return c.store.insistently(ctx, func(ctx context.Context) error {
		return c.store.insert(ctx, msg, c.store.timeOr(msg.NextAttemptAt, null))
	})
}

// check tells whether Save can take m, which may come from anywhere.
func (m *FailedMessage) check() error {
	for what, text := range map[string]string{"id": m.ID, "sender": m.Sender, "method": m.Method, "URL": m.URL, "host": m.Host,
		"host override": m.HostOverride, "idempotency key": m.IdempotencyKey, "failure kind": string(m.FailureKind),
		"last error": m.LastError} {
		if !isStorable(text) {
			return invalid(what, "has a NUL or is not UTF-8")
		}
	}
	if m.ID == "" || !isVisibleASCII(m.ID) {
		return invalid("id", "%q is not one", m.ID)
	}
	req, err := m.NewRequest(context.Background())
	if err != nil {
		return invalid("request", "cannot be made")
	}
	if req.URL.Scheme == "" || req.URL.Opaque == "" && req.URL.Host == "" {
		return invalid("URL", "not a whole one")
	}
	if err := checkHeader(m.Header); err != nil {
		return err
	}
	if err := m.checkNumbers(); err != nil {
		return err
	}
	config := sendConfig{metadata: m.Metadata, schedule: m.Schedule}
	return config.check()
}

func (m *FailedMessage) checkNumbers() error {
	for what, n := range map[string]int{"attempts": m.Attempts, "retries": m.Retries} {
		if n < 0 || n > math.MaxInt32 {
			return invalid(what, "%d is out of range", n)
		}
	}
	if m.StatusCode < math.MinInt32 || m.StatusCode > math.MaxInt32 {
		return invalid("status", "%d is out of range", m.StatusCode)
	}
	times := []*time.Time{&m.CreatedAt, &m.UpdatedAt, m.NextAttemptAt, m.NotAfter}
	for i := range m.AttemptLog {
		times = append(times, &m.AttemptLog[i].At)
	}
	for _, t := range times {
		if t != nil && !hasStorableYear(*t) {
			return invalid("time", "not in a year from 1 to 9999: %v", *t)
		}
	}
	return nil
}

// save inserts a new row. Its time is its own: the caller's context may have ended, which is why it is saved.
func (s *store) save(ctx context.Context, msg *FailedMessage, when due) error {
	return s.insistently(context.WithoutCancel(ctx), func(ctx context.Context) error {
		row := *msg
		row.CreatedAt, row.UpdatedAt = time.Time{}, time.Time{} // the database's clock
		return s.insert(ctx, &row, s.due(when))
	})
}

// insert writes a row unless it is there: an insert whose answer got lost can be repeated.
func (s *store) insert(ctx context.Context, m *FailedMessage, nextAttemptAt expr) error {
	values := []expr{
		arg(m.ID), s.timeOr(&m.CreatedAt, s.now()), s.timeOr(&m.UpdatedAt, s.now()), arg(m.Sender), arg(m.Method), arg(m.URL),
		arg(m.Host), arg(m.HostOverride), arg(bytesOf(headertext.Encode(m.Header))), arg(bytesOf(m.Body)),
		arg(toJSON(m.Metadata)), arg(m.IdempotencyKey), arg(m.StatusCode), arg(m.Attempts), arg(m.Retries),
		arg(string(m.FailureKind)), arg(m.LastError), arg(m.Retryable), nextAttemptAt, arg(toJSON(m.Schedule)),
		s.timeOr(m.NotAfter, null), arg(0), arg(""), null, arg(""), arg(toJSON(m.AttemptLog)),
	}
	_, err := s.exec(ctx, sql("INSERT INTO failed_message ("+columns+") VALUES (", list(values, ", "), ") ON CONFLICT (id) DO NOTHING"))
	return err
}

// bytesOf makes no bytes an empty value, not NULL.
func bytesOf(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// encodedMessage is a FailedMessage as bytes. Header and body need not be UTF-8, so they are bytes here too.
type encodedMessage struct {
	Version int
	FailedMessage
	Header    []byte // hides the embedded one
	HasHeader bool
}

const encodingVersion = 1

// MarshalBinary implements encoding.BinaryMarshaler: all of the message, exactly, for keeping it where the database
// cannot be reached. It holds every secret that the message holds.
func (m *FailedMessage) MarshalBinary() ([]byte, error) {
	e := encodedMessage{Version: encodingVersion, FailedMessage: *m, Header: headertext.Encode(m.Header), HasHeader: m.Header != nil}
	return json.Marshal(e)
}

// UnmarshalBinary implements encoding.BinaryUnmarshaler. It fails with ErrUnreadable.
func (m *FailedMessage) UnmarshalBinary(data []byte) error {
	var e encodedMessage
	if err := json.Unmarshal(data, &e); err != nil {
		return fmt.Errorf("%w: malformed encoding", ErrUnreadable)
	}
	if e.Version != encodingVersion {
		return fmt.Errorf("%w: encoding of version %d", ErrUnreadable, e.Version)
	}
	header, err := headertext.Decode(e.Header)
	if err != nil {
		return fmt.Errorf("%w: header: %w", ErrUnreadable, err)
	}
	*m = e.FailedMessage
	m.Header = nil
	if e.HasHeader {
		m.Header = header
	}
	return nil
}

// firstDue tells when a message that is saved is to be attempted again.
func (c *Client) firstDue(o *outgoing, r *result) due {
	var delay time.Duration
	if len(o.config.schedule) > 0 {
		delay = o.config.schedule[0]
	}
	return c.dueAfter(o, r, delay)
}

// nextDue tells when a row whose retries have failed that often is to be attempted again.
func (c *Client) nextDue(o *outgoing, r *result, retries int) due {
	if len(o.config.schedule) == 0 {
		return c.dueAfter(o, r, max(0, c.redeliveryBackoff.Delay(retries)))
	}
	if retries >= len(o.config.schedule) {
		return due{never: true}
	}
	return c.dueAfter(o, r, o.config.schedule[retries])
}

// dueAfter heeds what bears on a delay: the receiver's Retry-After, if longer, and the message's NotAfter.
func (c *Client) dueAfter(o *outgoing, r *result, delay time.Duration) due {
	delay = max(delay, min(r.retryAfter, c.maxPostpone))
	if r.Outcome == Invalid || o.config.hasPassed(delay) {
		return due{never: true}
	}
	return due{after: delay}
}
