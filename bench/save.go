package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"gorm.io/driver/sqlite"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

// senders is how many messages fail at a time. On PostgreSQL there are as many connections, so that nobody waits for one.
const senders = 64

// saving is the ways to get messages that failed into a table.
type saving struct {
	db     *gorm.DB
	rows   *template
	n      int
	client *hermes.Client
}

func newSaving(db *gorm.DB, rows *template, n int) (*saving, error) {
	client, err := failingClient(db)
	return &saving{db: db, rows: rows, n: n, client: client}, err
}

// Names of the ways that goals refer to.
const (
	viaHermes = "Hermes SendMessage"
	viaGORM   = "gorm.Create of each row"
)

func saveOnPostgres(ctx context.Context, l *lab) (*contest, error) {
	t, err := l.newTable(ctx, senders)
	if err != nil {
		return nil, err
	}
	s, err := newSaving(t.db, t.template, l.pick(12800, 640))
	if err != nil {
		return nil, errors.Join(err, t.end())
	}
	c := s.contest(l, fmt.Sprintf("%d connections", senders), t.end)
	c.contestants = append(c.contestants, s.way("COPY of all rows", func(ctx context.Context, rows []*hermes.FailedMessage) error {
		return t.copy(ctx, len(rows), func(i int) *hermes.FailedMessage { return rows[i] })
	}))
	return c, nil
}

func saveOnSQLite(ctx context.Context, l *lab) (*contest, error) {
	db, err := openSQLite(filepath.Join(l.dir, "save.db"))
	if err != nil {
		return nil, err
	}
	end := func() error { return closeDB(db) }
	template, err := newTemplate(ctx, db)
	if err != nil {
		return nil, errors.Join(err, end())
	}
	s, err := newSaving(db, template, l.pick(12800, 640))
	if err != nil {
		return nil, errors.Join(err, end())
	}
	return s.contest(l, "1 connection, WAL, synchronous FULL", end), nil
}

// openSQLite opens a file with settings that lose nothing. There is one connection: SQLite has one writer, and
// connections that wait for each other in Go, in order, are faster than those that wait for SQLite's lock.
func openSQLite(file string) (*gorm.DB, error) {
	return open(sqlite.Open("file:"+filepath.ToSlash(file)+"?_journal_mode=WAL&_synchronous=FULL&_busy_timeout=10000&_txlock=immediate"), 1)
}

func (s *saving) contest(l *lab, database string, end func() error) *contest {
	tuned := s.db.Session(&gorm.Session{SkipDefaultTransaction: true, PrepareStmt: true})
	return &contest{
		conditions: fmt.Sprintf("%s messages of 1 KiB a turn, %d at a time where each is a row of its own; %s", number(s.n), senders, database),
		rounds:     l.pick(5, 2),
		metrics:    []metric{perSecond},
		contestants: []contestant{
			{viaHermes, s.send},
			s.way(viaGORM, func(ctx context.Context, rows []*hermes.FailedMessage) error { return createEach(ctx, s.db, rows) }),
			s.way("the same, prepared, no BEGIN", func(ctx context.Context, rows []*hermes.FailedMessage) error {
				return createEach(ctx, tuned, rows)
			}),
			s.way("gorm.Create of 64 rows at once", func(ctx context.Context, rows []*hermes.FailedMessage) error {
				return create(ctx, s.db, rows, senders)
			}),
		},
		goals: []goal{ratio(perSecond, viaHermes, viaGORM, atLeast, 4)},
		end:   end,
	}
}

// send lets messages fail. What the sending costs is counted too.
func (s *saving) send(ctx context.Context) (sample, error) {
	return s.timed(ctx, func() error {
		return atOnce(senders, s.n, func(int) error {
			req, err := newRequest(ctx)
			if err != nil {
				return err
			}
			resp, err := s.client.SendMessage(req)
			if err == nil && resp.FailedMessageID == "" {
				err = errors.New("a message that fails was delivered")
			}
			return err
		})
	})
}

// way is a way of writing rows that are there already.
func (s *saving) way(name string, write func(context.Context, []*hermes.FailedMessage) error) contestant {
	return contestant{name, func(ctx context.Context) (sample, error) {
		rows := s.rows.rows(s.n)
		return s.timed(ctx, func() error { return write(ctx, rows) })
	}}
}

// timed empties the table, lets it be filled, and counts the rows.
func (s *saving) timed(ctx context.Context, fill func() error) (sample, error) {
	db := s.db.WithContext(ctx)
	if err := empty(db, tableName); err != nil {
		return nil, err
	}
	if err := settle(db, tableName); err != nil {
		return nil, err
	}
	start := time.Now()
	if err := fill(); err != nil {
		return nil, err
	}
	elapsed := time.Since(start)
	count, err := remaining(db)
	if err != nil {
		return nil, err
	}
	if count != int64(s.n) {
		return nil, fmt.Errorf("%d rows instead of %d", count, s.n)
	}
	return rate(s.n, elapsed), nil
}

func createEach(ctx context.Context, db *gorm.DB, rows []*hermes.FailedMessage) error {
	return atOnce(senders, len(rows), func(i int) error { return db.WithContext(ctx).Create(rows[i]).Error })
}

// atOnce does something n times, by this many goroutines.
func atOnce(goroutines, n int, do func(i int) error) error {
	var next atomic.Int64
	var group errgroup.Group
	for range goroutines {
		group.Go(func() error {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func rate(n int, elapsed time.Duration) sample {
	return sample{perSecond: float64(n) / elapsed.Seconds()}
}
