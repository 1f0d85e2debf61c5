// Package dialect holds what differs between the databases in the SQL that Hermes writes.
package dialect

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Dialect is one of the databases. Its expressions are SQL text with question marks for arguments.
type Dialect struct {
	Name string // GORM's name of it

	// Now is the database's clock when the statement began. Every comparison of times uses it, so that the clocks of
	// the instances do not matter. On PostgreSQL it is stable, not volatile, so that an index can serve it.
	Now string

	// NowPlus is Now and a Seconds argument.
	NowPlus string

	postgres bool
}

// For returns the dialect with GORM's name for it.
func For(name string) (*Dialect, error) {
	switch name {
	case "postgres":
		return &Dialect{
			Name:     name,
			Now:      "statement_timestamp()",
			NowPlus:  "(statement_timestamp() + CAST(? AS double precision) * interval '1 second')",
			postgres: true,
		}, nil
	case "sqlite":
		return &Dialect{Name: name, Now: sqliteNow(""), NowPlus: sqliteNow(", ? || ' seconds'")}, nil
	}
	return nil, fmt.Errorf("database %q is not supported: use PostgreSQL or SQLite", name)
}

// sqliteNow writes the database's clock as the driver writes a UTC time: with the fraction's trailing zeros, and an
// empty fraction, left out. Texts written this way sort as their times do ('+' < '.' < '0'), and a time that a user
// binds to a query is equal to the same time written here.
func sqliteNow(modifier string) string {
	return "(rtrim(rtrim(strftime('%Y-%m-%d %H:%M:%f', 'now'" + modifier + "), '0'), '.') || '+00:00')"
}

const sqliteTime = "2006-01-02 15:04:05.999999999-07:00"

var (
	firstTime = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	lastTime  = time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC)
)

// Bind gives text the database's own placeholders. A question mark in it is a placeholder always.
func (d *Dialect) Bind(text string) string {
	if !d.postgres {
		return text
	}
	bound := make([]byte, 0, len(text)+len(text)/8)
	for n := 0; ; {
		i := strings.IndexByte(text, '?')
		if i < 0 {
			return string(append(bound, text...))
		}
		n++
		bound = strconv.AppendInt(append(append(bound, text[:i]...), '$'), int64(n), 10)
		text = text[i+1:]
	}
}

// Time is t as an argument. Outside the years 1 to 9999 texts do not sort as times do, and PostgreSQL has an end too:
// there it is the first or the last time that both databases have.
func (d *Dialect) Time(t time.Time) any {
	t = t.UTC()
	if t.Before(firstTime) {
		t = firstTime
	} else if t.After(lastTime) {
		t = lastTime
	}
	if d.postgres {
		return t
	}
	return t.Format(sqliteTime)
}

// Seconds is wait as the argument of NowPlus.
func (d *Dialect) Seconds(wait time.Duration) any {
	if d.postgres {
		return wait.Seconds()
	}
	return strconv.FormatFloat(wait.Seconds(), 'f', 3, 64)
}

// LockRows ends a SELECT of rows that the statement around it will update.
func (d *Dialect) LockRows() string {
	if d.postgres {
		return "FOR UPDATE SKIP LOCKED"
	}
	return "" // a writing statement has SQLite's one write lock from its start
}

// LocksQueue tells whether those who wait for a lock get it in turn.
func (d *Dialect) LocksQueue() bool { return d.postgres }

// Like is a condition that column matches a LIKE pattern, whatever the case. A backslash escapes.
func (d *Dialect) Like(column string) string {
	if d.postgres {
		return column + ` ILIKE ? ESCAPE '\'`
	}
	return column + ` LIKE ? ESCAPE '\'`
}

// Holds is a condition that a text stands in column.
func (d *Dialect) Holds(column string) string {
	if d.postgres {
		return "strpos(" + column + ", ?) > 0"
	}
	return "instr(" + column + ", ?) > 0"
}

// Contains is a condition that a text stands literally in column, whatever the case.
func (d *Dialect) Contains(column string) string {
	if d.postgres {
		return "strpos(lower(" + column + "), lower(?)) > 0"
	}
	return "instr(lower(" + column + "), lower(?)) > 0"
}

// InJSON is a condition that column is one of a JSON array's strings: one argument, however many there are.
func (d *Dialect) InJSON(column string) string {
	if d.postgres {
		return column + " IN (SELECT json_array_elements_text(CAST(? AS json)))"
	}
	return column + " IN (SELECT value FROM json_each(?))"
}

// Records is a JSON array's objects as rows, from one argument. Columns are given as PostgreSQL declares them.
func (d *Dialect) Records(columns []string) string {
	if d.postgres {
		return "(SELECT * FROM json_to_recordset(CAST(? AS json)) AS r(" + strings.Join(columns, ", ") + "))"
	}
	fields := make([]string, len(columns))
	for i, column := range columns {
		name, _, _ := strings.Cut(column, " ")
		fields[i] = "value ->> '" + name + "' AS " + name
	}
	return "(SELECT " + strings.Join(fields, ", ") + " FROM json_each(?))"
}

// ScanTime reads a time column, which SQLite hands over as text where a statement hides the column's type.
type ScanTime struct {
	Time  time.Time
	Valid bool
}

// Scan implements sql.Scanner.
func (s *ScanTime) Scan(value any) error {
	*s = ScanTime{}
	switch v := value.(type) {
	case nil:
		return nil
	case time.Time:
		*s = ScanTime{Time: v.UTC(), Valid: true}
		return nil
	case []byte:
		return s.parse(string(v))
	case string:
		return s.parse(v)
	}
	return fmt.Errorf("a time cannot be read from %T", value)
}

func (s *ScanTime) parse(text string) error {
	text = strings.TrimSuffix(text, "Z")
	for _, layout := range []string{sqliteTime, "2006-01-02T15:04:05.999999999-07:00", "2006-01-02 15:04:05.999999999",
		"2006-01-02T15:04:05.999999999", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			*s = ScanTime{Time: t.UTC(), Valid: true}
			return nil
		}
	}
	return fmt.Errorf("a time cannot be read from %q", text)
}

// Ptr returns the time, or nil for NULL.
func (s *ScanTime) Ptr() *time.Time {
	if !s.Valid {
		return nil
	}
	t := s.Time
	return &t
}
