// Package testdb hands tests real, empty databases: SQLite files and
// PostgreSQL databases, never a mock, because what matters about a storage
// layer (locking, isolation, dialect) is exactly what a mock leaves out.
//
// Every database is private to the test that asked for it, so all tests may
// run in parallel, and its DSN also works for another process.
//
// PostgreSQL (13 or newer) is either the server named by
// HERMES_TEST_POSTGRES_DSN, whose role must be allowed to create databases, or
// a throwaway cluster that is started on first use from the programs installed
// on this machine and that never outlives the test process.
package testdb

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"gorm.io/driver/postgres"
	"gorm.io/driver/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

const (
	serverEnv     = "HERMES_TEST_POSTGRES_DSN"
	requireAllEnv = "HERMES_REQUIRE_ALL"

	// maxOpenConns keeps many parallel tests below the server's
	// max_connections, which they all share.
	maxOpenConns = 10

	// dropTimeout bounds the clean-up, which cannot use the context of a test
	// that is already over.
	dropTimeout = 30 * time.Second
)

// Main runs the tests and then stops the throwaway PostgreSQL cluster if one
// was started, leaving no process, directory or goroutine behind. It returns
// the exit code:
//
//	func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }
//
// A test binary without it is safe too, the cluster just ends a moment after
// the process instead of before it.
func Main(m *testing.M) int {
	code := m.Run()
	if err := throwaway.stop(); err != nil {
		fmt.Fprintf(os.Stderr, "testdb: %v\n", err)
		code = max(code, 1)
	}
	return code
}

// Each runs test once per supported database, as the parallel subtests
// "sqlite" and "postgres", each with a fresh and empty one.
func Each(t *testing.T, test func(t *testing.T, db *gorm.DB)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, SQLite(t))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, Postgres(t))
	})
}

// SQLite opens a fresh SQLite database.
func SQLite(t testing.TB) *gorm.DB {
	t.Helper()
	return Open(t, SQLiteDSN(t))
}

// SQLiteDSN returns the DSN of a SQLite file that does not exist yet and is
// removed with the test's temporary directory. Its settings are those of a
// durable, concurrent deployment: tests of crash safety and of contention would
// mean nothing with weaker ones.
func SQLiteDSN(t testing.TB) string {
	t.Helper()
	// Escaped, because the name of a repeated subtest puts a # into the path.
	file := url.URL{Path: filepath.ToSlash(filepath.Join(t.TempDir(), "test.db"))}
	return "file:" + file.EscapedPath() + "?_journal_mode=WAL&_busy_timeout=10000&_txlock=immediate&_synchronous=FULL"
}

// Postgres opens a fresh PostgreSQL database.
func Postgres(t testing.TB) *gorm.DB {
	t.Helper()
	return Open(t, PostgresDSN(t))
}

// PostgresDSN returns the DSN of a fresh PostgreSQL database that is dropped,
// whoever is still connected, when the test ends. It is a database rather than
// a schema because advisory locks, notifications and the transaction horizon
// are all shared by the schemas of a database.
func PostgresDSN(t testing.TB) string {
	t.Helper()
	server, err := postgresServer()
	if errors.Is(err, errNotInstalled) {
		Missing(t, "PostgreSQL", fmt.Sprintf("install it (Debian: apt-get install postgresql) or set %s (%v)", serverEnv, err))
	}
	if err != nil {
		t.Fatalf("testdb: %v", err)
	}
	name := "hermes_test_" + strings.ToLower(rand.Text())
	dsn, err := withDatabase(server, name)
	if err != nil {
		t.Fatalf("testdb: %v", err)
	}
	// template0 because template1 cannot be copied while anybody is connected
	// to it, which on a shared server is not ours to decide.
	if err := execute(t.Context(), server, "CREATE DATABASE "+name+" TEMPLATE template0"); err != nil {
		t.Fatalf("testdb: create database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), dropTimeout)
		defer cancel()
		if err := execute(ctx, server, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("testdb: drop database: %v", err)
		}
	})
	return dsn
}

// Open opens the database with the given DSN, of either kind, silently and
// with a bounded pool. It is closed when the test ends.
func Open(t testing.TB, dsn string) *gorm.DB {
	t.Helper()
	dialector := sqlite.Open(dsn)
	if isPostgres(dsn) {
		dialector = postgres.Open(dsn)
	}
	db, err := gorm.Open(dialector, &gorm.Config{Logger: logger.Discard})
	if err != nil {
		t.Fatalf("testdb: open database: %v", err)
	}
	pool, err := db.DB()
	if err != nil {
		t.Fatalf("testdb: connection pool: %v", err)
	}
	pool.SetMaxOpenConns(maxOpenConns)
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Errorf("testdb: close database: %v", err)
		}
	})
	return db
}

// Missing ends a test that cannot run because a component is not installed. It
// skips by default, so that the suite runs on any machine, but loudly; with
// HERMES_REQUIRE_ALL=1, meant for CI, it fails, so that a hole in the test
// environment cannot pass for a success.
func Missing(t testing.TB, component, hint string) {
	t.Helper()
	if os.Getenv(requireAllEnv) == "1" {
		t.Fatalf("NOT TESTED: %s is missing and %s=1 forbids to skip: %s", component, requireAllEnv, hint)
	}
	t.Skipf("SKIPPED, NOT TESTED: %s is missing: %s", component, hint)
}

// postgresServer returns the DSN of the server on which databases are created.
func postgresServer() (string, error) {
	if dsn := os.Getenv(serverEnv); dsn != "" {
		return dsn, nil
	}
	return throwaway.server()
}

// execute runs a single statement on a connection of its own. There is no
// pool: its goroutine would outlive the tests that look for leaks.
func execute(ctx context.Context, dsn, statement string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	_, err = conn.Exec(ctx, statement)
	return errors.Join(err, conn.Close(ctx))
}

// withDatabase points dsn at another database of the same server.
func withDatabase(dsn, name string) (string, error) {
	if isURL(dsn) {
		u, err := url.Parse(dsn)
		if err != nil {
			return "", fmt.Errorf("parse DSN: %w", err)
		}
		u.Path = "/" + name
		dsn = u.String()
	} else {
		dsn += " dbname=" + name // the last of several counts
	}
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return "", fmt.Errorf("parse DSN: %w", err)
	}
	if config.Database != name {
		// Going on would let all tests share one database.
		return "", fmt.Errorf("DSN insists on database %q; name it in the path of the URL", config.Database)
	}
	return dsn, nil
}

func isPostgres(dsn string) bool {
	return isURL(dsn) || strings.Contains(dsn, "host=")
}

func isURL(dsn string) bool {
	return strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://")
}
