// Package testpgbouncer runs the installed PgBouncer, in transaction mode, in front of a test's PostgreSQL database: there
// the statements of one connection are spread over several of the server's.
package testpgbouncer

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"text/template"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hermeshttp/hermes/internal/testdb"
)

const (
	startTimeout = 10 * time.Second

	// portAttempts is how often another port is tried, lest somebody else takes the free one that was found.
	portAttempts = 5
)

//go:embed pgbouncer.ini.tmpl
var configText string

var config = template.Must(template.New("pgbouncer.ini").Parse(configText))

// supervise runs PgBouncer for as long as standard input stays open, which is until the test closes it or its process
// ends, be it killed.
const supervise = `
"$1" -q "$2/pgbouncer.ini" >"$2/output.log" 2>&1 &
read -r _
kill -KILL $! 2>/dev/null
wait $!
`

// Pooler is a running PgBouncer.
type Pooler struct {
	// DSN is the address of the database behind the pooler.
	DSN string
	// KnowsPreparedStatements tells whether clients may prepare statements although they change connections.
	KnowsPreparedStatements bool

	dir  string
	port int
}

// Start starts a PgBouncer in front of the PostgreSQL database with the given DSN, on a free loopback port. It serves when
// Start returns and ends with the test. Without an installed PgBouncer the test is skipped, see testdb.Missing.
func Start(t testing.TB, dsn string) *Pooler {
	t.Helper()
	program, err := find()
	if err != nil {
		testdb.Missing(t, "PgBouncer", fmt.Sprintf("install it (Debian: apt-get install pgbouncer) (%v)", err))
	}
	server, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatalf("testpgbouncer: %v", err)
	}
	knows, err := knowsPreparedStatements(program)
	if err != nil {
		t.Fatalf("testpgbouncer: %v", err)
	}
	for attempt := 1; ; attempt++ {
		p := &Pooler{dir: t.TempDir(), KnowsPreparedStatements: knows}
		err := p.run(t, program, server)
		if err == nil {
			return p
		}
		if attempt == portAttempts {
			output, _ := os.ReadFile(filepath.Join(p.dir, "output.log")) // need not exist
			t.Fatalf("testpgbouncer: %v\n%s", err, output)
		}
	}
}

// run starts the pooler and waits until it answers.
func (p *Pooler) run(t testing.TB, program string, server *pgx.ConnConfig) error {
	var err error
	if p.port, err = freePort(); err != nil {
		return err
	}
	p.DSN = fmt.Sprintf("postgres://pooled@127.0.0.1:%d/%s?sslmode=disable", p.port, server.Database)
	if err := p.configure(server); err != nil {
		return err
	}
	cmd := exec.Command("sh", "-c", supervise, "sh", program, p.dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := func() error {
		_ = stdin.Close()
		_ = cmd.Wait() // its status is that of a server that was killed
		return nil
	}
	if err := p.await(t); err != nil {
		return errors.Join(err, stop())
	}
	t.Cleanup(func() { _ = stop() })
	return nil
}

// configure writes the configuration.
func (p *Pooler) configure(server *pgx.ConnConfig) error {
	var text bytes.Buffer
	err := config.Execute(&text, map[string]any{
		"Server":   server,
		"Port":     p.port,
		"User":     unprivileged(),
		"Prepared": p.KnowsPreparedStatements,
	})
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return os.WriteFile(filepath.Join(p.dir, "pgbouncer.ini"), text.Bytes(), 0o600)
}

// await returns once the database behind the pooler has answered.
func (p *Pooler) await(t testing.TB) error {
	for deadline := time.Now().Add(startTimeout); ; {
		conn, err := pgx.Connect(t.Context(), p.DSN+"&default_query_exec_mode=simple_protocol")
		if err == nil {
			return errors.Join(conn.Ping(t.Context()), conn.Close(t.Context()))
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("PgBouncer does not answer: %w", err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// unprivileged is the user to run as: none, unless we are root, as whom PgBouncer refuses to run.
func unprivileged() string {
	if os.Geteuid() != 0 {
		return ""
	}
	for _, name := range []string{"postgres", "nobody"} {
		if _, err := user.Lookup(name); err == nil {
			return name
		}
	}
	return ""
}

var versionPattern = regexp.MustCompile(`(?i)pgbouncer (\d+)\.(\d+)`)

// knowsPreparedStatements tells whether it is version 1.21 or newer.
func knowsPreparedStatements(program string) (bool, error) {
	output, err := exec.Command(program, "--version").Output()
	if err != nil {
		return false, fmt.Errorf("version: %w", err)
	}
	match := versionPattern.FindSubmatch(output)
	if match == nil {
		return false, fmt.Errorf("version: cannot read %q", output)
	}
	major, _ := strconv.Atoi(string(match[1])) // they are digits
	minor, _ := strconv.Atoi(string(match[2]))
	return major > 1 || major == 1 && minor >= 21, nil
}

// find returns the PgBouncer program, which an ordinary user's PATH often lacks.
func find() (string, error) {
	if _, err := exec.LookPath("sh"); err != nil {
		return "", err
	}
	path, err := exec.LookPath("pgbouncer")
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, "pgbouncer"))
	}
	return path, err
}

// freePort returns a loopback port nobody listens on at the moment.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return listener.Addr().(*net.TCPAddr).Port, listener.Close()
}
