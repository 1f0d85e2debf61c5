package hermes

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/hermeshttp/hermes/internal/redact"
)

// FailedMessage is a row of failed_message: a message that was not delivered, with all that is needed to send it again.
// It is a GORM model, to be read with queries of one's own. Change rows through the Client: Save, Release, Reschedule,
// PurgeMessage. In particular, db.Save of a message that has been delivered meanwhile would bring it back.
//
// It holds whatever secrets the message holds. Printing or logging one does not show them, encoding it as JSON does.
type FailedMessage struct {
	ID        string    `gorm:"primaryKey"`                    // a UUIDv7, made before the first attempt
	CreatedAt time.Time `gorm:"not null;autoCreateTime:false"` // when it was saved, by the database's clock
	UpdatedAt time.Time `gorm:"not null;autoUpdateTime:false"` // when its outcome or its due time last changed; a claim is no change

	Sender         string            `gorm:"not null"` // WithSender of the client that saved it
	Method         string            `gorm:"not null"`
	URL            string            `gorm:"not null"` // with its query and userinfo: not to be shown as it is
	Host           string            `gorm:"not null"` // of the URL, with its port if it names one, in lower case
	HostOverride   string            `gorm:"not null"` // of the Host header where it differs, else ""
	Header         http.Header       `gorm:"not null;type:bytes;serializer:hermes_header"`
	Body           []byte            `gorm:"not null;type:bytes;serializer:hermes_body"`
	Metadata       map[string]string `gorm:"not null;serializer:json"`
	IdempotencyKey string            `gorm:"not null"`

	StatusCode    int         `gorm:"not null;size:32"` // of the last attempt; 0: no answer
	Attempts      int         `gorm:"not null;size:32"` // ever
	Retries       int         `gorm:"not null;size:32"` // by RetryMessage or RetryAll, that failed
	FailureKind   FailureKind `gorm:"not null"`         // "" until an attempt failed
	LastError     string      `gorm:"not null"`         // redacted
	Retryable     bool        `gorm:"not null"`
	NextAttemptAt *time.Time  // nil: invalid or exhausted

	Schedule []time.Duration `gorm:"not null;serializer:json"`
	NotAfter *time.Time

	Claims       int        `gorm:"not null;size:32"` // since an outcome was last recorded
	ClaimToken   string     `gorm:"not null"`         // of a gathered message, what proves its claim; in the table, what that is compared with
	ClaimedUntil *time.Time // nil or past: not claimed
	ClaimedBy    string     `gorm:"not null"` // WithInstanceID of the holder

	AttemptLog []AttemptRecord `gorm:"not null;serializer:json"` // the last 25

	unreadable error
}

// AttemptRecord is one attempt in a message's log.
type AttemptRecord struct {
	At         time.Time     `json:"at"`       // when it began, by the instance's clock
	Duration   time.Duration `json:"duration"` // in nanoseconds in JSON
	StatusCode int           `json:"status"`   // 0: no answer
	Kind       FailureKind   `json:"kind"`
	Hops       int           `json:"hops,omitempty"` // redirects followed
	Instance   string        `json:"instance"`       // WithInstanceID
}

const longestAttemptLog = 25

// TableName implements GORM's Tabler.
func (*FailedMessage) TableName() string { return "failed_message" }

// State is what a row is waiting for.
type State string

// The states of a row; each has exactly one.
const (
	// StateDue: retryable, its time has come, and nobody has claimed it.
	StateDue State = "due"
	// StateWaiting: retryable, its time is to come.
	StateWaiting State = "waiting"
	// StateClaimed: an instance is working on it.
	StateClaimed State = "claimed"
	// StateInvalid: as it is, it cannot succeed. An operator decides: Reschedule or purge.
	StateInvalid State = "invalid"
	// StateExhausted: it could succeed, but its Schedule is used up or its NotAfter has passed.
	StateExhausted State = "exhausted"
)

// States returns all states.
func States() []State {
	return []State{StateDue, StateWaiting, StateClaimed, StateInvalid, StateExhausted}
}

// State returns the row's state, by this process' clock. Filter.States goes by the database's.
func (m *FailedMessage) State() State {
	now := time.Now()
	switch {
	case m.ClaimedUntil != nil && m.ClaimedUntil.After(now):
		return StateClaimed
	case !m.Retryable:
		return StateInvalid
	case m.NextAttemptAt == nil, m.NotAfter != nil && !m.NotAfter.After(now):
		return StateExhausted
	case m.NextAttemptAt.After(now):
		return StateWaiting
	}
	return StateDue
}

// Unreadable returns nil, or why the row's content could not be read back: an error that matches ErrUnreadable. Such a
// message has everything but its content; jobs pass it by.
func (m *FailedMessage) Unreadable() error { return m.unreadable }

// NewRequest makes the request that the message was saved for, idempotency key included. It lacks only what a request
// signer adds. It fails with ErrUnreadable.
func (m *FailedMessage) NewRequest(ctx context.Context) (*http.Request, error) {
	if m.unreadable != nil {
		return nil, m.unreadable
	}
	template, err := m.newTemplate()
	if err != nil {
		return nil, err
	}
	req := template.Clone(ctx)
	if len(m.Body) > 0 {
		req.ContentLength = int64(len(m.Body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(m.Body)), nil }
		req.Body, _ = req.GetBody()
	}
	return req, nil
}

// newTemplate makes the request without its body. It shares the header.
func (m *FailedMessage) newTemplate() (*http.Request, error) {
	req, err := http.NewRequestWithContext(context.Background(), m.Method, m.URL, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrUnreadable, redact.Text(err.Error(), []string{m.URL}))
	}
	if m.Header != nil {
		req.Header = m.Header
	}
	if m.HostOverride != "" {
		req.Host = m.HostOverride
	}
	return req, nil
}

// LogValue implements slog.LogValuer. It shows no header value, no body, and the URL redacted.
func (m FailedMessage) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("id", m.ID),
		slog.String("method", m.Method),
		slog.String("url", m.RedactedURL()),
		slog.String("state", string(m.State())),
		slog.Int("status", m.StatusCode),
		slog.String("kind", string(m.FailureKind)),
		slog.Int("attempts", m.Attempts),
		slog.Int("retries", m.Retries),
	)
}

// String shows what LogValue shows, also where fmt prints a message with %v or %+v.
func (m FailedMessage) String() string {
	return fmt.Sprintf("failed message %s: %s %s, %s, status %d, %d attempts", m.ID, m.Method, m.RedactedURL(), m.State(),
		m.StatusCode, m.Attempts)
}

// GoString is String, for %#v.
func (m FailedMessage) GoString() string { return m.String() }

// RedactedURL is URL as it may be shown: without its userinfo and query.
func (m *FailedMessage) RedactedURL() string {
	u, err := url.Parse(m.URL)
	if err != nil {
		return redact.Mark
	}
	return redact.URL(u)
}

// newFailedMessage makes the row of a message that was not delivered, and tells when it is due.
func (c *Client) newFailedMessage(o *outgoing, r *result) (*FailedMessage, due) {
	now := time.Now().UTC()
	msg := &FailedMessage{
		ID:             o.id,
		CreatedAt:      now,
		UpdatedAt:      now,
		Sender:         c.sender,
		Method:         o.method(),
		URL:            o.Template.URL.String(),
		Host:           o.host(),
		Header:         o.FullHeader(), // the key stays under its name, however the client that retries it is configured
		Body:           o.Body,
		Metadata:       maps.Clone(o.config.metadata),
		IdempotencyKey: o.config.key,
		Schedule:       o.config.schedule,
	}
	if host := o.Template.Host; host != "" && host != o.Template.URL.Host {
		msg.HostOverride = host
	}
	if !o.config.notAfter.IsZero() {
		notAfter := o.config.notAfter.UTC().Round(0)
		msg.NotAfter = &notAfter
	}
	o.note(msg, r)
	when := c.firstDue(o, r)
	msg.Retryable = r.Outcome != Invalid
	msg.NextAttemptAt = when.from(now)
	return msg, when
}

// note writes into msg how a run of attempts ended.
func (o *outgoing) note(msg *FailedMessage, r *result) {
	msg.StatusCode = max(math.MinInt32, min(r.StatusCode, math.MaxInt32)) // a RoundTripper may answer with any int
	msg.Attempts += r.Attempts
	if msg.Attempts > 0 {
		msg.FailureKind = r.kind
		msg.LastError = o.errorText(r.err)
	}
	msg.AttemptLog = append(slices.Clone(msg.AttemptLog), o.log...)
	if extra := len(msg.AttemptLog) - longestAttemptLog; extra > 0 {
		msg.AttemptLog = msg.AttemptLog[extra:]
	}
}

// outgoingFrom is the message of a row that is to be sent again.
func outgoingFrom(row *FailedMessage) (*outgoing, error) {
	if row.unreadable != nil {
		return nil, row.unreadable
	}
	template, err := row.newTemplate()
	if err != nil {
		return nil, err
	}
	o := &outgoing{id: row.ID, row: row}
	o.Template, o.Header, o.Body = template, row.Header, row.Body
	o.config.schedule = row.Schedule
	if row.NotAfter != nil {
		o.config.notAfter = *row.NotAfter
	}
	return o, nil
}
