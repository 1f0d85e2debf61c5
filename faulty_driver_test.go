package hermes_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/driver/postgres"
	"gorm.io/driver/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

var errPlanned = errors.New("planned failure")

// fault says which of a database's calls fails. Its zero value: none.
type fault struct {
	at      int  // the number of the call, from 1
	onwards bool // and all after it
	applied bool // after the database has done what it was asked for
	quoting bool // the error quotes what the call was about
}

// faults has a database's calls fail as planned.
type faults struct {
	mu    sync.Mutex
	calls int
	fault fault
}

// plan sets the next fault, and forgets the calls so far.
func (f *faults) plan(next fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls, f.fault = 0, next
}

func (f *faults) made() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// next counts a call and returns the error with which it is to fail before and after it is made.
func (f *faults) next(args []driver.NamedValue) (before, after error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.fault.at == 0 || f.calls < f.fault.at || f.calls > f.fault.at && !f.fault.onwards {
		return nil, nil
	}
	err := errPlanned
	if f.fault.quoting {
		var all string
		for _, arg := range args {
			all += fmt.Sprintf(" %s", arg.Value)
		}
		err = fmt.Errorf("%w: %s", errPlanned, all)
	}
	if f.fault.applied {
		return nil, err
	}
	return err, nil
}

// openFaulty opens a database through a driver that fails as planned. The plan starts out without a fault.
func openFaulty(t testing.TB, db *gorm.DB, dsn string) (*gorm.DB, *faults) {
	t.Helper()
	healthy, err := db.DB()
	require.NoError(t, err)
	plan := &faults{}
	pool := sql.OpenDB(&faultyConnector{healthy.Driver(), dsn, plan})
	t.Cleanup(func() { require.NoError(t, pool.Close()) })
	var dialector gorm.Dialector = postgres.New(postgres.Config{Conn: pool})
	if db.Name() == "sqlite" {
		dialector = sqlite.New(sqlite.Config{Conn: pool})
	}
	faulty, err := gorm.Open(dialector, &gorm.Config{Logger: logger.Discard})
	require.NoError(t, err)
	return faulty, plan
}

type faultyConnector struct {
	inner driver.Driver
	dsn   string
	plan  *faults
}

func (c *faultyConnector) Driver() driver.Driver { return c.inner }

func (c *faultyConnector) Connect(context.Context) (driver.Conn, error) {
	conn, err := c.inner.Open(c.dsn)
	if err != nil {
		return nil, err
	}
	return &faultyConn{conn, c.plan}, nil
}

// faultyConn is a connection on which the planned calls fail. What else it can do, is the driver's.
type faultyConn struct {
	driver.Conn
	plan *faults
}

func (c *faultyConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	before, after := c.plan.next(args)
	if before != nil {
		return nil, before
	}
	result, err := c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
	if err == nil && after != nil {
		return nil, after
	}
	return result, err
}

func (c *faultyConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	before, after := c.plan.next(args)
	if before != nil {
		return nil, before
	}
	rows, err := c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
	if err != nil || after == nil {
		return rows, err
	}
	values := make([]driver.Value, len(rows.Columns()))
	for rows.Next(values) == nil { // a statement that is read to its end has been applied
	}
	return nil, errors.Join(after, rows.Close())
}

func (c *faultyConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	return c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
}

func (c *faultyConn) CheckNamedValue(value *driver.NamedValue) error {
	if checker, ok := c.Conn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(value)
	}
	return driver.ErrSkip
}

func (c *faultyConn) ResetSession(ctx context.Context) error {
	if resetter, ok := c.Conn.(driver.SessionResetter); ok {
		return resetter.ResetSession(ctx)
	}
	return nil
}
