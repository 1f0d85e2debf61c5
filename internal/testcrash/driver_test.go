package testcrash

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"regexp"
	"strings"

	"gorm.io/driver/postgres"
	"gorm.io/driver/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// openWatched opens a child's database through a driver that tells watch what is asked of it.
func openWatched(spec *childSpec, watch *watcher) (*gorm.DB, error) {
	name, dialector := "sqlite3", func(pool *sql.DB) gorm.Dialector { return sqlite.New(sqlite.Config{Conn: pool}) }
	if strings.HasPrefix(spec.DSN, "postgres") || strings.Contains(spec.DSN, "host=") {
		name, dialector = "pgx", func(pool *sql.DB) gorm.Dialector { return postgres.New(postgres.Config{Conn: pool}) }
	}
	unopened, err := sql.Open(name, spec.DSN) // for its driver
	if err != nil {
		return nil, err
	}
	pool := sql.OpenDB(&watchedConnector{unopened.Driver(), spec, watch})
	pool.SetMaxOpenConns(4)
	pool.SetMaxIdleConns(4)
	return gorm.Open(dialector(pool), &gorm.Config{Logger: logger.Discard, DisableAutomaticPing: true})
}

type watchedConnector struct {
	inner driver.Driver
	spec  *childSpec
	watch *watcher
}

// Driver implements driver.Connector.
func (c *watchedConnector) Driver() driver.Driver { return c.inner }

// Connect implements driver.Connector.
func (c *watchedConnector) Connect(context.Context) (driver.Conn, error) {
	conn, err := c.inner.Open(c.spec.DSN)
	if err != nil {
		return nil, err
	}
	return &watchedConn{conn, c.spec.Unfenced, c.watch}, nil
}

// watchedConn is a connection whose statements are watched and, in a control, rewritten.
type watchedConn struct {
	driver.Conn
	isUnfenced bool
	watch      *watcher
}

// ExecContext implements driver.ExecerContext.
func (c *watchedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	query = c.before(query)
	result, err := c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
	if err == nil && isInsert(query) {
		for _, number := range numbersIn(args) {
			c.watch.rowSaved(number)
		}
	}
	return result, err
}

// QueryContext implements driver.QueryerContext.
func (c *watchedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, c.before(query), args)
}

func (c *watchedConn) before(query string) string {
	switch {
	case isInsert(query):
		c.watch.visit(atInsert)
	case strings.HasPrefix(query, "DELETE FROM failed_message"):
		c.watch.visit(atDelete)
	case strings.Contains(query, "status_code = v.status"):
		c.watch.visit(atRecord)
	}
	if c.isUnfenced {
		return unfence(query)
	}
	return query
}

func isInsert(query string) bool { return strings.HasPrefix(query, "INSERT INTO failed_message") }

var heldCondition = regexp.MustCompile(`\bclaim_token = (\$\d+|\?|v\.token)`)

// unfence makes Hermes' conditions on claims true, whoever holds them.
func unfence(query string) string {
	query = strings.ReplaceAll(query, "(claimed_until IS NULL OR ", "(TRUE OR ")
	return heldCondition.ReplaceAllString(query, "(TRUE OR ${0})")
}

// numbersIn are the numbers of the messages whose bodies are among args.
func numbersIn(args []driver.NamedValue) []int {
	var all []int
	for _, arg := range args {
		body, ok := arg.Value.([]byte)
		if !ok || !bytes.HasPrefix(body, []byte(scriptStart)) {
			continue
		}
		var s script
		if json.Unmarshal(body, &s) == nil {
			all = append(all, s.Number)
		}
	}
	return all
}

// BeginTx implements driver.ConnBeginTx.
func (c *watchedConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	return c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
}

// CheckNamedValue implements driver.NamedValueChecker.
func (c *watchedConn) CheckNamedValue(value *driver.NamedValue) error {
	if checker, ok := c.Conn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(value)
	}
	return driver.ErrSkip
}

// ResetSession implements driver.SessionResetter.
func (c *watchedConn) ResetSession(ctx context.Context) error {
	if resetter, ok := c.Conn.(driver.SessionResetter); ok {
		return resetter.ResetSession(ctx)
	}
	return nil
}
