package hermes

import (
	"context"
	"math"
	"time"
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
	return c.saves.insert(ctx, &newRow{FailedMessage: *msg, due: due{never: true}})
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
