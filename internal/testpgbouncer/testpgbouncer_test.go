package testpgbouncer

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/hermeshttp/hermes/internal/testdb"
)

func TestMain(m *testing.M) {
	code := testdb.Main(m)
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// TestTransactionMode: what a statement set for its session, the next does not find.
func TestTransactionMode(t *testing.T) {
	t.Parallel()
	p := Start(t, testdb.PostgresDSN(t))
	const clients = 6 // twice as many as connections
	seen := map[int]bool{}
	var all []*pgx.Conn
	for range clients {
		conn, err := pgx.Connect(t.Context(), p.DSN+"&default_query_exec_mode=simple_protocol")
		require.NoError(t, err)
		all = append(all, conn)
		tx, err := conn.Begin(t.Context())
		require.NoError(t, err)
		var pid int
		require.NoError(t, tx.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&pid))
		seen[pid] = true
		require.NoError(t, tx.Commit(t.Context()))
	}
	for _, conn := range all {
		require.NoError(t, conn.Close(t.Context()))
	}
	assert.Less(t, len(seen), clients)
}

func TestStops(t *testing.T) {
	t.Parallel()
	dsn := testdb.PostgresDSN(t)
	var p *Pooler
	t.Run("owner", func(t *testing.T) { p = Start(t, dsn) })
	_, err := pgx.Connect(t.Context(), p.DSN)
	assert.Error(t, err)
	assert.NoDirExists(t, p.dir)
}

func TestMissing(t *testing.T) {
	t.Setenv("PATH", "")
	t.Setenv("HERMES_REQUIRE_ALL", "")
	verdict := make(chan string, 1)
	go func() { // which the verdict ends, like that of a real test
		Start(&witness{TB: t, verdict: verdict}, "")
		verdict <- "went on"
	}()
	assert.Contains(t, <-verdict, "SKIPPED, NOT TESTED: PgBouncer is missing: install it")
}

// witness records how a test ends.
type witness struct {
	testing.TB
	verdict chan<- string
}

func (w *witness) Skipf(format string, args ...any) {
	w.verdict <- fmt.Sprintf(format, args...)
	runtime.Goexit()
}
