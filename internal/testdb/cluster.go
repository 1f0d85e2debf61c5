package testdb

import (
	"bufio"
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// portAttempts is how often another port is tried: between choosing a free one
// and listening on it, somebody else may take it.
const portAttempts = 5

// errNotInstalled says that there is no way to run PostgreSQL on this machine,
// as opposed to a PostgreSQL that fails to run, which is worth a failing test.
var errNotInstalled = errors.New("not installed")

// throwaway is the one cluster of this test process. Starting one takes about
// a second, too much to do it for each test.
var throwaway cluster

// supervise is the shell script that owns the cluster; see there.
//
//go:embed supervise.sh
var supervise string

// cluster is a PostgreSQL server with a data directory of its own, run by a
// supervising shell that outlives this process just long enough to clean up.
type cluster struct {
	once sync.Once
	dsn  string
	err  error

	supervisor *exec.Cmd
	dir        string
	lease      io.WriteCloser // standard input of the supervisor, which ends the cluster when it is closed
	reports    *bufio.Reader  // standard output of the supervisor
}

// server returns the DSN of the cluster's maintenance database, starting the
// cluster the first time.
func (c *cluster) server() (string, error) {
	c.once.Do(func() {
		if c.dsn, c.err = c.start(); c.err != nil {
			c.err = errors.Join(fmt.Errorf("start PostgreSQL: %w", c.err), c.stop())
		}
	})
	return c.dsn, c.err
}

func (c *cluster) start() (dsn string, err error) {
	bin, err := findPostgres()
	if err != nil {
		return "", err
	}
	// Not the directory of a test: the cluster outlives the test that
	// happens to start it, and its user may be another one than ours.
	if c.dir, err = os.MkdirTemp("", "hermes-postgres-"); err != nil {
		return "", fmt.Errorf("create cluster directory: %w", err)
	}
	if err := c.launch(bin); err != nil {
		return "", fmt.Errorf("launch supervisor: %w", err)
	}
	if err := c.await(); err != nil {
		return "", fmt.Errorf("initialise cluster: %w", err)
	}
	var failure error
	for range portAttempts {
		port, err := freePort()
		if err != nil {
			return "", err
		}
		if dsn, failure = c.listen(port); failure == nil {
			return dsn, nil
		}
	}
	return "", fmt.Errorf("start server: %w", failure)
}

// launch starts the supervisor.
func (c *cluster) launch(bin string) error {
	cmd := exec.Command("sh", "-c", supervise, "sh", bin, c.dir)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if err := detach(cmd, c.dir); err != nil {
		return err
	}
	lease, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	reports, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("standard output: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.supervisor, c.lease, c.reports = cmd, lease, bufio.NewReader(reports)
	return nil
}

// listen has the server started on the given port.
func (c *cluster) listen(port int) (dsn string, err error) {
	if _, err := fmt.Fprintln(c.lease, port); err != nil {
		return "", fmt.Errorf("instruct supervisor: %w", err)
	}
	if err := c.await(); err != nil {
		return "", err
	}
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", port), nil
}

// await blocks until the supervisor reports the outcome of a step. Whatever it
// says before a failure becomes the error.
func (c *cluster) await() error {
	var output strings.Builder
	for {
		line, err := c.reports.ReadString('\n')
		switch {
		case line == "ready\n":
			return nil
		case line == "failed\n":
			return errors.New(output.String())
		case err != nil:
			return fmt.Errorf("supervisor: %w: %s", err, output.String())
		}
		output.WriteString(line)
	}
}

// stop ends the cluster, if there is one, and waits until nothing is left of it.
func (c *cluster) stop() error {
	if c.supervisor != nil {
		// The exit status is that of a supervisor that was told to end or
		// that has reported its failure already.
		_ = c.lease.Close()
		_ = c.supervisor.Wait()
		c.supervisor = nil
	}
	if c.dir == "" {
		return nil
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("remove cluster directory: %w", err)
	}
	return nil
}

// findPostgres returns the directory of PostgreSQL's server programs, which
// most distributions keep out of the PATH.
func findPostgres() (string, error) {
	if _, err := exec.LookPath("sh"); err != nil {
		return "", fmt.Errorf("%w: no shell: %w", errNotInstalled, err)
	}
	for _, dir := range postgresDirs() {
		if hasPrograms(dir, "initdb", "pg_ctl", "postgres") {
			return dir, nil
		}
	}
	return "", fmt.Errorf("%w: no initdb, pg_ctl and postgres in PATH or the usual places", errNotInstalled)
}

func postgresDirs() []string {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",
		"/usr/pgsql-*/bin",
		"/usr/local/pgsql/bin",
		"/opt/homebrew/opt/postgresql*/bin",
		"/usr/local/opt/postgresql*/bin",
	} {
		found, _ := filepath.Glob(pattern) // fails for a malformed pattern only
		dirs = append(dirs, newestFirst(found)...)
	}
	return dirs
}

func hasPrograms(dir string, names ...string) bool {
	return filepath.IsAbs(dir) && !slices.ContainsFunc(names, func(name string) bool {
		_, err := exec.LookPath(filepath.Join(dir, name))
		return err != nil
	})
}

var versionPattern = regexp.MustCompile(`\d+(\.\d+)?`)

// newestFirst sorts installation directories by the version in their path,
// numerically, lest 9.6 comes before 16.
func newestFirst(dirs []string) []string {
	version := func(dir string) float64 {
		v, _ := strconv.ParseFloat(versionPattern.FindString(dir), 64)
		return v
	}
	return slices.SortedStableFunc(slices.Values(dirs), func(a, b string) int {
		return cmp.Compare(version(b), version(a))
	})
}

// freePort returns a loopback port nobody listens on at the moment.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	return port, listener.Close()
}
