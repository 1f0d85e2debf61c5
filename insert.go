package hermes

import (
	"context"
	"strings"
	"time"

	"github.com/hermeshttp/hermes/internal/headertext"
)

// newRow is a row to be: a message, and what the database's clock adds to it.
type newRow struct {
	FailedMessage        // its zero CreatedAt and UpdatedAt mean now
	due           due    // counts unless NextAttemptAt says when
	held          *claim // nil: it is free
}

// rowFrom is msg as a row whose times are the database's.
func rowFrom(msg *FailedMessage, when due, held *claim) *newRow {
	row := &newRow{FailedMessage: *msg, due: when, held: held}
	row.CreatedAt, row.UpdatedAt, row.NextAttemptAt = time.Time{}, time.Time{}, nil
	return row
}

// insert writes rows, all or none, except those that are there: an insert whose answer got lost can be repeated.
func (s *store) insert(ctx context.Context, rows ...*newRow) error {
	var args []any
	for _, r := range rows {
		args = append(args, s.values(r)...)
	}
	_, err := s.exec(ctx, expr{s.insertText(len(rows)), args})
	return err
}

// insertText differs by the number of rows alone, so that the statement need be prepared only once for each.
func (s *store) insertText(rows int) string {
	orNow, fromNow := "COALESCE(?, "+s.dialect.Now+")", s.dialect.NowPlus
	row := "(?, " + orNow + ", " + orNow + strings.Repeat(", ?", 15) + ", COALESCE(?, " + fromNow + "), ?, ?, ?, ?, " + fromNow + ", ?, ?)"
	return "INSERT INTO failed_message (" + columns + ") VALUES " + row + strings.Repeat(", "+row, rows-1) + " ON CONFLICT (id) DO NOTHING"
}

// values are the arguments of a row in insertText.
func (s *store) values(r *newRow) []any {
	m := &r.FailedMessage
	claims, token, claimedBy, claimedFor := 0, "", "", any(nil)
	if r.held != nil {
		claims, token, claimedBy, claimedFor = 1, r.held.token, r.held.by, s.dialect.Seconds(r.held.ttl)
	}
	return []any{
		m.ID, s.timeOrNil(&m.CreatedAt), s.timeOrNil(&m.UpdatedAt), m.Sender, m.Method, m.URL, m.Host, m.HostOverride,
		bytesOf(headertext.Encode(m.Header)), bytesOf(m.Body), toJSON(m.Metadata), m.IdempotencyKey, m.StatusCode, m.Attempts,
		m.Retries, string(m.FailureKind), m.LastError, m.Retryable, s.timeOrNil(m.NextAttemptAt), s.secondsOrNil(r.due),
		toJSON(m.Schedule), s.timeOrNil(m.NotAfter), claims, token, claimedFor, claimedBy, toJSON(m.AttemptLog),
	}
}

func (s *store) timeOrNil(t *time.Time) any {
	if t == nil || t.IsZero() {
		return nil
	}
	return s.dialect.Time(*t)
}

// secondsOrNil is how long from now on a row is due; never, as what is added to no number is none.
func (s *store) secondsOrNil(d due) any {
	if d.never {
		return nil
	}
	return s.dialect.Seconds(d.after)
}

// bytesOf makes no bytes an empty value, not NULL.
func bytesOf(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
