package hermes

import (
	"context"
	"fmt"
	"iter"
	"time"

	"gorm.io/gorm"

	"github.com/hermeshttp/hermes/internal/cursor"
)

// Monitor shows the rows of failed_message. It changes nothing, and is safe for concurrent use.
type Monitor struct {
	store *store
}

// NewMonitor returns a view of a table without a client that sends. db and the errors are as for New.
func NewMonitor(db *gorm.DB, opts ...Option) (*Monitor, error) {
	c, err := New(db, opts...)
	if err != nil {
		return nil, err
	}
	return c.Monitor(), nil
}

// Order is what a list is ordered by; rows that are equal in it, by their ID.
type Order string

// The orders of a list.
const (
	// OrderByCreated: when a row was saved. The default, and the one in which no row moves while pages are read.
	OrderByCreated Order = "created_at"
	// OrderByUpdated: when its outcome or its due time last changed.
	OrderByUpdated Order = "updated_at"
	// OrderByNextAttempt: when it is due; rows that are not to be attempted count as last.
	OrderByNextAttempt Order = "next_attempt_at"
)

// ListOptions says which page of a list to read.
type ListOptions struct {
	Limit     int    // rows of a page; 0: 50, at most 1000
	After     Cursor // Page.Next of the page before; zero: the first page
	OrderBy   Order  // "": OrderByCreated. With After, its cursor's order counts
	Ascending bool   // oldest first. With After, its cursor's direction counts
}

const (
	defaultPageSize = 50
	longestPage     = 1000
)

// Page is a part of a list.
type Page struct {
	Messages []*FailedMessage
	Next     Cursor // of the page behind; zero: this was the last
}

// Cursor is a place in a list, between two pages. It can be passed on as text, through String and ParseCursor.
type Cursor struct{ position cursor.Position }

// IsZero tells whether there is no place: no further page.
func (c Cursor) IsZero() bool { return c == Cursor{} }

// String returns the cursor as text that may stand in a URL; "" if it is zero.
func (c Cursor) String() string {
	if c.IsZero() {
		return ""
	}
	return cursor.Encode(c.position)
}

// ParseCursor reads what String returned. It fails with ErrInvalidCursor.
func ParseCursor(text string) (Cursor, error) {
	if text == "" {
		return Cursor{}, nil
	}
	position, err := cursor.Decode(text)
	if err != nil || !Order(position.Order).isKnown() {
		return Cursor{}, ErrInvalidCursor
	}
	return Cursor{position}, nil
}

// MarshalText implements encoding.TextMarshaler.
func (c Cursor) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It fails with ErrInvalidCursor.
func (c *Cursor) UnmarshalText(text []byte) (err error) {
	*c, err = ParseCursor(string(text))
	return err
}

func (o Order) isKnown() bool {
	return o == OrderByCreated || o == OrderByUpdated || o == OrderByNextAttempt
}

// Get returns a row. It fails with ErrNotFound.
func (m *Monitor) Get(ctx context.Context, id string) (*FailedMessage, error) {
	return m.store.get(ctx, id)
}

func (s *store) get(ctx context.Context, id string) (*FailedMessage, error) {
	if !isStorable(id) {
		return nil, fmt.Errorf("%w: %q", ErrNotFound, id)
	}
	rows, err := s.query(ctx, sql("SELECT "+columns+" FROM failed_message WHERE id = ", arg(id)))
	if err != nil {
		return nil, fmt.Errorf("hermes: reading %s: %w", id, err)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	rows[0].ClaimToken = "" // to look at a claim is not to hold it
	return rows[0], nil
}

// List returns a page of the rows that match f, by default the newest 50 first. While pages are read, a row that stays
// and does not change is on exactly one of them.
func (m *Monitor) List(ctx context.Context, f Filter, o ListOptions) (*Page, error) {
	limit := o.Limit
	if limit <= 0 {
		limit = defaultPageSize
	}
	limit = min(limit, longestPage)
	from := o.After.position
	if o.After.IsZero() {
		from.Order, from.Ascending = string(o.OrderBy), o.Ascending
		if from.Order == "" {
			from.Order = string(OrderByCreated)
		}
	}
	if !Order(from.Order).isKnown() {
		return nil, fmt.Errorf("%w: order %q", ErrInvalidOption, from.Order)
	}
	rows, err := m.store.page(ctx, f, from, limit+1)
	if err != nil {
		return nil, fmt.Errorf("hermes: listing: %w", err)
	}
	for _, row := range rows {
		row.ClaimToken = ""
	}
	page := &Page{Messages: rows}
	if len(rows) > limit {
		page.Messages = rows[:limit]
		last := rows[limit-1]
		page.Next.position = cursor.Position{Order: from.Order, Ascending: from.Ascending, At: last.orderedBy(from.Order), ID: last.ID}
	}
	return page, nil
}

// notToBeAttempted is where rows without a next attempt stand in their order.
var notToBeAttempted = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

func (m *FailedMessage) orderedBy(order string) time.Time {
	switch Order(order) {
	case OrderByUpdated:
		return m.UpdatedAt
	case OrderByNextAttempt:
		if m.NextAttemptAt == nil {
			return notToBeAttempted
		}
		return *m.NextAttemptAt
	}
	return m.CreatedAt
}

// page reads the rows behind a position: by key, so that the millionth page costs what the first does.
func (s *store) page(ctx context.Context, f Filter, from cursor.Position, limit int) ([]*FailedMessage, error) {
	key := expr{text: from.Order}
	if Order(from.Order) == OrderByNextAttempt {
		key = sql("COALESCE(next_attempt_at, ", s.time(notToBeAttempted), ")")
	}
	operator, direction := "<", " DESC"
	if from.Ascending {
		operator, direction = ">", " ASC"
	}
	where := s.conditions(f)
	if from.ID != "" {
		where = append(where, sql("(", key, ", id) "+operator+" (", s.time(from.At), ", ", arg(from.ID), ")"))
	}
	return s.query(ctx, sql("SELECT "+columns+" FROM failed_message WHERE ", list(where, " AND "),
		" ORDER BY ", key, direction, ", id"+direction+" LIMIT ", arg(limit)))
}

// All returns all rows that match f, the newest first. It reads page by page and holds no connection between them. An
// error ends it.
func (m *Monitor) All(ctx context.Context, f Filter) iter.Seq2[*FailedMessage, error] {
	return func(yield func(*FailedMessage, error) bool) {
		options := ListOptions{Limit: longestPage}
		for {
			page, err := m.List(ctx, f, options)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, msg := range page.Messages {
				if !yield(msg, nil) {
					return
				}
			}
			if page.Next.IsZero() {
				return
			}
			options.After = page.Next
		}
	}
}

// Count returns how many rows match f.
func (m *Monitor) Count(ctx context.Context, f Filter) (int64, error) {
	s := m.store
	count := sql("SELECT count(*) FROM failed_message WHERE ", list(s.conditions(f), " AND "))
	var n int64
	if err := s.queryValue(ctx, count, &n); err != nil {
		return 0, fmt.Errorf("hermes: counting: %w", err)
	}
	return n, nil
}
