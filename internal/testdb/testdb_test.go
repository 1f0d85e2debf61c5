package testdb

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gorm.io/gorm"
)

// holdEnv makes the test binary start a cluster and hold it until killed.
const holdEnv = "HERMES_TESTDB_HOLD"

func TestMain(m *testing.M) {
	if os.Getenv(holdEnv) == "1" {
		hold()
		return
	}
	code := Main(m)
	if err := stillThere(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// stillThere says what Main has failed to stop.
func stillThere() error {
	if _, err := os.Stat(throwaway.dir); throwaway.dir != "" && !os.IsNotExist(err) {
		return fmt.Errorf("directory %s is still there: %w", throwaway.dir, err)
	}
	if throwaway.dsn != "" {
		if conn, err := pgx.Connect(context.Background(), throwaway.dsn); err == nil {
			_ = conn.Close(context.Background())
			return fmt.Errorf("server %s still runs", throwaway.dsn)
		}
	}
	return goleak.Find()
}

type note struct {
	ID   uint
	Text string
}

func TestEach(t *testing.T) {
	t.Parallel()
	var (
		mu   sync.Mutex
		seen []string
	)
	t.Run("databases", func(t *testing.T) {
		for range 3 { // the same table again only fits into another database
			Each(t, func(t *testing.T, db *gorm.DB) {
				assert.Contains(t, t.Name(), db.Name())
				tables, err := db.Migrator().GetTables()
				require.NoError(t, err)
				assert.Empty(t, tables)
				require.NoError(t, db.Migrator().CreateTable(&note{}))
				require.NoError(t, db.Create(&note{Text: "hello"}).Error)
				mu.Lock()
				defer mu.Unlock()
				seen = append(seen, db.Name())
			})
		}
	})
	if _, err := postgresServer(); err == nil {
		assert.ElementsMatch(t, []string{"sqlite", "postgres", "sqlite", "postgres", "sqlite", "postgres"}, seen)
	}
}

func TestPoolIsBounded(t *testing.T) {
	t.Parallel()
	Each(t, func(t *testing.T, db *gorm.DB) {
		pool, err := db.DB()
		require.NoError(t, err)
		assert.Equal(t, maxOpenConns, pool.Stats().MaxOpenConnections)
	})
}

// TestDSNIsSharable opens each database a second time, as another process would.
func TestDSNIsSharable(t *testing.T) {
	t.Parallel()
	for name, newDSN := range map[string]func(testing.TB) string{"sqlite": SQLiteDSN, "postgres": PostgresDSN} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := newDSN(t)
			require.NoError(t, Open(t, dsn).AutoMigrate(&note{}))
			assert.True(t, Open(t, dsn).Migrator().HasTable(&note{}))
			assert.False(t, Open(t, newDSN(t)).Migrator().HasTable(&note{}))
		})
	}
}

func TestSQLiteSettings(t *testing.T) {
	t.Parallel()
	dsn := SQLiteDSN(t)
	db := Open(t, dsn)
	for pragma, want := range map[string]string{"journal_mode": "wal", "busy_timeout": "10000", "synchronous": "2"} {
		assert.Equal(t, want, show(t, db, "PRAGMA "+pragma), pragma)
	}

	// Beginning a transaction takes the write lock already.
	tx := db.Begin()
	require.NoError(t, tx.Error)
	defer tx.Rollback()
	impatient := Open(t, strings.Replace(dsn, "_busy_timeout=10000", "_busy_timeout=0", 1))
	assert.ErrorContains(t, impatient.Begin().Error, "locked")
}

func TestPostgresDatabaseIsDropped(t *testing.T) {
	t.Parallel()
	server := Postgres(t)
	var name string
	t.Run("owner", func(t *testing.T) {
		dsn := PostgresDSN(t)
		config, err := pgx.ParseConfig(dsn)
		require.NoError(t, err)
		name = config.Database

		// A connection nobody closes must not keep the database alive.
		stray, err := pgx.Connect(t.Context(), dsn)
		require.NoError(t, err)
		require.NoError(t, stray.Ping(t.Context()))
	})
	assert.Equal(t, "0", show(t, server, "SELECT count(*) FROM pg_database WHERE datname = ?", name))
}

func TestThrowawaySettings(t *testing.T) {
	t.Parallel()
	dsn := throwawayDSN(t)
	assert.Contains(t, dsn, "@127.0.0.1:")
	db := Open(t, dsn)
	for setting, want := range map[string]string{
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": throwaway.dir,
		"max_connections":         "300",
		"fsync":                   "off",
		"full_page_writes":        "off",
		"synchronous_commit":      "off",
		"server_encoding":         "UTF8",
	} {
		assert.Equal(t, want, show(t, db, "SHOW "+setting), setting)
	}
	assert.Equal(t, "C", show(t, db, "SELECT datcollate FROM pg_database WHERE datname = current_database()"))
}

// TestForeignServer names a server in the environment, in both forms of a DSN.
func TestForeignServer(t *testing.T) {
	config, err := pgx.ParseConfig(throwawayDSN(t))
	require.NoError(t, err)
	for name, dsn := range map[string]string{
		"url":     fmt.Sprintf("postgresql://postgres@127.0.0.1:%d/postgres?application_name=foreign&sslmode=disable", config.Port),
		"keyword": fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres application_name=foreign", config.Port),
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(serverEnv, dsn)
			db := Postgres(t)
			assert.Equal(t, "foreign", show(t, db, "SHOW application_name"))
			assert.Contains(t, show(t, db, "SELECT current_database()"), "hermes_test_")
		})
	}
}

func TestWithDatabaseRefusesToShare(t *testing.T) {
	t.Parallel()
	_, err := withDatabase("postgres://localhost/?dbname=mine", "fresh")
	assert.ErrorContains(t, err, `"mine"`)
}

func TestNewestFirst(t *testing.T) {
	t.Parallel()
	assert.Equal(t,
		[]string{"/pg/16/bin", "/pg/15/bin", "/pg/9.6/bin", "/pg/bin"},
		newestFirst([]string{"/pg/bin", "/pg/15/bin", "/pg/9.6/bin", "/pg/16/bin"}))
}

func TestFindPostgresNotInstalled(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs a shell to get that far")
	}
	shell, err := exec.LookPath("sh")
	require.NoError(t, err)
	path := t.TempDir()
	require.NoError(t, os.Symlink(shell, filepath.Join(path, "sh")))
	t.Setenv("PATH", path+string(filepath.ListSeparator)) // with an empty element, which is no place to look
	if dir, err := findPostgres(); err != nil {
		assert.ErrorIs(t, err, errNotInstalled)
	} else {
		assert.True(t, filepath.IsAbs(dir))
	}
	t.Setenv("PATH", "")
	_, err = findPostgres()
	assert.ErrorIs(t, err, errNotInstalled)
}

// TestStartFails makes sure that a PostgreSQL that does not work is reported
// with its own words and leaves nothing behind.
func TestStartFails(t *testing.T) {
	if _, err := findPostgres(); err != nil {
		Missing(t, "PostgreSQL", err.Error())
	}
	t.Setenv("TMPDIR", t.TempDir())
	bin := t.TempDir()
	for _, name := range []string{"initdb", "pg_ctl", "postgres"} {
		require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\necho out of luck\nexit 1\n"), 0o755))
	}
	t.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	if os.Geteuid() == 0 {
		openUp(t, bin, os.Getenv("TMPDIR"))
	}

	var c cluster
	_, err := c.server()
	require.ErrorContains(t, err, "out of luck")
	assert.NotErrorIs(t, err, errNotInstalled)
	assert.NoDirExists(t, c.dir)
}

// TestPortTaken makes sure that a port lost to somebody else costs an attempt
// and not the cluster.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	bin, err := findPostgres()
	if err != nil {
		Missing(t, "PostgreSQL", err.Error())
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	free, err := freePort()
	require.NoError(t, err)

	var c cluster
	c.dir, err = os.MkdirTemp("", "hermes-postgres-")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.stop()) })
	require.NoError(t, c.launch(bin))
	require.NoError(t, c.await())
	_, err = c.listen(taken.Addr().(*net.TCPAddr).Port)
	require.ErrorContains(t, err, "could not bind")
	dsn, err := c.listen(free)
	require.NoError(t, err)
	assert.Equal(t, "1", show(t, Open(t, dsn), "SELECT 1"))
}

// openUp lets the unprivileged user of the cluster into the given directories.
func openUp(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		require.NoError(t, os.Chmod(dir, 0o777))
		require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	}
}

// TestKilled kills a test process that has a running cluster, in the way that
// leaves it no chance to clean up.
func TestKilled(t *testing.T) {
	t.Parallel()
	if _, err := findPostgres(); err != nil {
		Missing(t, "PostgreSQL", err.Error())
	}
	self, err := os.Executable()
	require.NoError(t, err)

	// The child's descendants inherit the writing end, too, so that the end of
	// the file is the end of the last of them.
	alive, inherited, err := os.Pipe()
	require.NoError(t, err)
	defer alive.Close()
	require.NoError(t, alive.SetReadDeadline(time.Now().Add(time.Minute)))

	child := exec.Command(self)
	child.Env = append(os.Environ(), holdEnv+"=1")
	child.Stderr = os.Stderr
	child.ExtraFiles = []*os.File{inherited}
	stdin, err := child.StdinPipe() // never closed, keeps the child waiting
	require.NoError(t, err)
	defer stdin.Close()
	stdout, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	require.NoError(t, inherited.Close())

	var dir, dsn string
	_, err = fmt.Fscanln(stdout, &dir, &dsn)
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(dir, "data"), show(t, Open(t, dsn), "SHOW data_directory"))

	require.NoError(t, child.Process.Kill())
	assert.Error(t, child.Wait())
	_, err = io.Copy(io.Discard, alive)
	require.NoError(t, err, "processes are left")
	assert.NoDirExists(t, dir)
	_, err = pgx.Connect(t.Context(), dsn)
	assert.Error(t, err)
}

// hold is the child's part of TestKilled.
func hold() {
	dsn, err := throwaway.server()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(throwaway.dir, dsn)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func TestMissing(t *testing.T) {
	for value, want := range map[string]string{
		"":  "skip: SKIPPED, NOT TESTED: PostgreSQL is missing: install it",
		"0": "skip: SKIPPED, NOT TESTED: PostgreSQL is missing: install it",
		"1": "fatal: NOT TESTED: PostgreSQL is missing and HERMES_REQUIRE_ALL=1 forbids to skip: install it",
	} {
		t.Run(strconv.Quote(value), func(t *testing.T) {
			t.Setenv(requireAllEnv, value)
			verdict := make(chan string, 1)
			go func() { // which the verdict ends, like that of a real test
				Missing(&witness{TB: t, verdict: verdict}, "PostgreSQL", "install it")
				verdict <- "went on"
			}()
			assert.Equal(t, want, <-verdict)
		})
	}
}

// witness records how a test ends.
type witness struct {
	testing.TB
	verdict chan<- string
}

func (w *witness) Fatalf(format string, args ...any) { w.end("fatal: "+format, args...) }
func (w *witness) Skipf(format string, args ...any)  { w.end("skip: "+format, args...) }

func (w *witness) end(format string, args ...any) {
	w.verdict <- fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// throwawayDSN returns the DSN of the throwaway cluster, even if the
// environment names another server.
func throwawayDSN(t *testing.T) string {
	t.Helper()
	if _, err := findPostgres(); err != nil {
		Missing(t, "PostgreSQL", err.Error())
	}
	dsn, err := throwaway.server()
	require.NoError(t, err)
	return dsn
}

// show returns the single value a query yields.
func show(t *testing.T, db *gorm.DB, query string, args ...any) string {
	t.Helper()
	var value string
	require.NoError(t, db.Raw(query, args...).Scan(&value).Error)
	return value
}
