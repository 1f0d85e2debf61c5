package hermes

import (
	"context"
	databasesql "database/sql"
	"errors"
	"math/rand/v2"
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
func (s *store) exec(ctx context.Context, e expr) (touched int64, err error) {
	err = s.serialized(ctx, func() error {
		result, err := s.pool.ExecContext(ctx, s.dialect.Bind(e.text), e.args...)
		if err != nil {
			return err
		}
		touched, err = result.RowsAffected()
		return err
	})
	return touched, err
}

// query runs a statement that returns rows of all columns.
func (s *store) query(ctx context.Context, e expr) (msgs []*FailedMessage, err error) {
	var r scannedRow
	targets := r.targets()
	err = s.scan(ctx, e, func(rows *databasesql.Rows) error {
		if rows == nil {
			msgs = nil
			return nil
		}
		if err := rows.Scan(targets...); err != nil {
			return err
		}
		msgs = append(msgs, r.message())
		return nil
	})
	return msgs, err
}

// queryIDs runs a statement that returns rows' IDs.
func (s *store) queryIDs(ctx context.Context, e expr) (ids []string, err error) {
	err = s.scan(ctx, e, func(rows *databasesql.Rows) error {
		if rows == nil {
			ids = nil
			return nil
		}
		var id string
		if err := rows.Scan(&id); err != nil {
			return err
		}
		ids = append(ids, id)
		return nil
	})
	return ids, err
}

// queryValue runs a statement that returns one row of one column.
func (s *store) queryValue(ctx context.Context, e expr, value any) error {
	return s.scan(ctx, e, func(rows *databasesql.Rows) error {
		if rows == nil {
			return nil
		}
		return rows.Scan(value)
	})
}

// scan runs a statement and hands over each of its rows; before the first, nil, as it may begin anew.
func (s *store) scan(ctx context.Context, e expr, each func(*databasesql.Rows) error) error {
	return s.serialized(ctx, func() error {
		rows, err := s.pool.QueryContext(ctx, s.dialect.Bind(e.text), e.args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		if err := each(nil); err != nil {
			return err
		}
		for rows.Next() {
			if err := each(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}

// serialized repeats a statement that the database broke off because of what others did at the same time: a deadlock,
// or, where the user's connections are stricter than READ COMMITTED, a failed serialization.
func (s *store) serialized(ctx context.Context, statement func() error) error {
	for try := 1; ; try++ {
		err := statement()
		if err == nil || s.inTransaction || !isConflict(err) || try == maxConflicts {
			return err
		}
		timer := time.NewTimer(rand.N(time.Duration(try) * 5 * time.Millisecond))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

const maxConflicts = 20

// isConflict goes by the SQL standard's class 40, transaction rollback: serialization failure and, PostgreSQL's, deadlock.
func isConflict(err error) bool {
	var state interface{ SQLState() string }
	return errors.As(err, &state) && (state.SQLState() == "40001" || state.SQLState() == "40P01")
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
