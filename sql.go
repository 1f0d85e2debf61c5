package hermes

import (
	"context"
	"strings"
	"time"
)

// expr is a piece of SQL with its arguments.
type expr struct {
	text string
	args []any
}

// sql joins pieces, each a string or an expr, in order.
func sql(parts ...any) expr {
	var text strings.Builder
	var args []any
	for _, part := range parts {
		switch p := part.(type) {
		case string:
			text.WriteString(p)
		case expr:
			text.WriteString(p.text)
			args = append(args, p.args...)
		}
	}
	return expr{text.String(), args}
}

// arg is a value as a placeholder.
func arg(value any) expr { return expr{"?", []any{value}} }

// key is an ID or a token from a caller as a placeholder. What cannot be stored no row has; PostgreSQL would refuse it.
func key(text string) expr {
	if !isStorable(text) {
		return arg("")
	}
	return arg(text)
}

// list joins pieces by a separator.
func list(parts []expr, separator string) expr {
	var all []any
	for i, part := range parts {
		if i > 0 {
			all = append(all, separator)
		}
		all = append(all, part)
	}
	return sql(all...)
}

// exec runs a statement and tells how many rows it touched.
func (s *store) exec(ctx context.Context, e expr) (int64, error) {
	result := s.db.WithContext(ctx).Exec(e.text, e.args...)
	return result.RowsAffected, result.Error
}

// query runs a statement that returns rows of all columns.
func (s *store) query(ctx context.Context, e expr) ([]*FailedMessage, error) {
	rows, err := s.db.WithContext(ctx).Raw(e.text, e.args...).Rows()
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var msgs []*FailedMessage
	var r scannedRow
	targets := r.targets()
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return nil, err
		}
		msgs = append(msgs, r.message())
	}
	return msgs, rows.Err()
}

// queryIDs runs a statement that returns rows' IDs.
func (s *store) queryIDs(ctx context.Context, e expr) ([]string, error) {
	rows, err := s.db.WithContext(ctx).Raw(e.text, e.args...).Rows()
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// insistently repeats work, which must be safe to repeat, until it succeeds or the save timeout has passed.
func (s *store) insistently(ctx context.Context, work func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.saveTimeout)
	defer cancel()
	var last error
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := work(ctx)
		if err == nil {
			return nil
		}
		if last != nil && ctx.Err() != nil {
			return last // why it failed says more than that the time was up
		}
		last = err
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

func (s *store) now() expr { return expr{text: s.dialect.Now} }

func (s *store) nowPlus(d time.Duration) expr {
	return expr{s.dialect.NowPlus, []any{s.dialect.Seconds(d)}}
}

func (s *store) time(t time.Time) expr { return arg(s.dialect.Time(t)) }

// timeOr is *t, or other without one.
func (s *store) timeOr(t *time.Time, other expr) expr {
	if t == nil || t.IsZero() {
		return other
	}
	return s.time(*t)
}

var null = expr{text: "NULL"}
