package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
)

//go:embed cluster.sh
var clusterScript string

// cluster is a PostgreSQL server that is ours alone. The tests' one would be no measure: it does without fsync.
type cluster struct {
	dsn    string
	script *exec.Cmd
	lease  io.Closer // the script's standard input: closed, it ends the server
}

func startCluster(ctx context.Context) (*cluster, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	args := []string{"sh", "-c", clusterScript, "sh", fmt.Sprint(port)}
	if os.Geteuid() == 0 { // as whom PostgreSQL refuses to run
		args = append([]string{"runuser", "-u", "postgres", "--"}, args...)
	}
	// Not ended by the context: the server is needed until the databases are dropped.
	script := exec.CommandContext(context.WithoutCancel(ctx), args[0], args[1:]...)
	script.Dir = os.TempDir()
	script.Env = append(os.Environ(), "LC_ALL=C")
	lease, err := script.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := script.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := script.Start(); err != nil {
		return nil, err
	}
	if err := awaitReady(output); err != nil {
		return nil, errors.Join(err, lease.Close(), script.Wait())
	}
	dsn := fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", port)
	return &cluster{dsn: dsn, script: script, lease: lease}, nil
}

// awaitReady reads until the script says that the server is ready. What else it says explains why it is not.
func awaitReady(output io.Reader) error {
	var said strings.Builder
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		if lines.Text() == "ready" {
			return nil
		}
		said.WriteString(lines.Text() + "\n")
	}
	return errors.Join(errors.New(said.String()), lines.Err())
}

// stop ends the server and waits until nothing is left of it.
func (c *cluster) stop() error {
	return errors.Join(c.lease.Close(), c.script.Wait())
}

// freePort returns a loopback port on which nobody listens at the moment.
func freePort(ctx context.Context) (int, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return listener.Addr().(*net.TCPAddr).Port, listener.Close()
}
