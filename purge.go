package hermes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hermeshttp/hermes/internal/dialect"
)

// purgeBatch is how many rows a purge deletes at a time: few enough that nobody waits for its locks.
const purgeBatch = 500

// PurgeMessage deletes a row for good, delivered or not. Of msg only ID and ClaimToken are read. It fails with
// ErrNotFound, or with ErrClaimed if another than msg holds the row.
func (c *Client) PurgeMessage(ctx context.Context, msg *FailedMessage) error {
	if msg == nil {
		return invalid("message", "nil")
	}
	s := c.store
	n, err := s.exec(ctx, sql("DELETE FROM failed_message WHERE id = ", key(msg.ID), " AND (", s.unclaimed(),
		" OR claim_token = ", arg(token(msg.ClaimToken)), ")"))
	if err != nil {
		return fmt.Errorf("hermes: purging %s: %w", msg.ID, err)
	}
	if n > 0 {
		return nil
	}
	row, err := s.get(ctx, msg.ID)
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: %s, by %s", ErrClaimed, row.ID, row.ClaimedBy)
}

// Purge deletes the rows that match f for good, delivered or not, and returns how many it deleted. Rows that are claimed
// at the moment are left out, and so is what is saved after it has begun. It is of all senders' rows; Filter.Senders
// narrows.
//
// It deletes a few hundred rows at a time, each time in a transaction of its own: if it fails, or ctx ends, what it has
// deleted until then stays deleted, and is counted. It fails with ErrUnboundedFilter for a filter without any condition;
// see Everything.
//
// Retention is a filter too: of what is exhausted and older than a month, say, OlderThan(30*24*time.Hour) with States.
func (c *Client) Purge(ctx context.Context, f Filter) (int64, error) {
	if f.isUnbounded() {
		return 0, ErrUnboundedFilter
	}
	s := c.store
	begun, err := s.clock(ctx)
	if err != nil {
		return 0, fmt.Errorf("hermes: purging: %w", err)
	}
	matching := append(s.conditions(f), sql("created_at <= ", s.time(begun)), s.unclaimed())
	var total int64
	for after := ""; ; {
		page := slices.Concat(matching, []expr{sql("id > ", arg(after))})
		ids, err := s.queryIDs(ctx, sql("SELECT id FROM failed_message WHERE ", list(page, " AND "), " ORDER BY id LIMIT ", arg(purgeBatch)))
		if err != nil {
			return total, fmt.Errorf("hermes: purging: %w", err)
		}
		if len(ids) == 0 {
			return total, nil
		}
		after = ids[len(ids)-1]
		start := time.Now()
		n, err := s.exec(ctx, sql("DELETE FROM failed_message WHERE ", in(s, "id", ids), " AND ", list(matching, " AND ")))
		total += n
		if err != nil {
			return total, fmt.Errorf("hermes: purging: %w", err)
		}
		s.makeWay(ctx, time.Since(start))
	}
}

// clock reads the database's clock.
func (s *store) clock(ctx context.Context) (time.Time, error) {
	var now dialect.ScanTime
	if err := s.queryValue(ctx, sql("SELECT ", s.now()), &now); err != nil {
		return time.Time{}, err
	}
	if !now.Valid {
		return time.Time{}, errors.New("the database has no clock")
	}
	return now.Time, nil
}
