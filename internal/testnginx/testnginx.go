// Package testnginx runs the installed nginx as the receiving end of HTTP
// requests: a server nobody here wrote, so that the client is tested against
// real behaviour and not against our own idea of it.
package testnginx

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/hermeshttp/hermes/internal/testdb"
)

const (
	// barrier is a location that is kept out of the access log.
	barrier = "/.testnginx"

	barrierTimeout = 10 * time.Second
)

//go:embed nginx.conf.tmpl
var configText string

var config = template.Must(template.New("nginx.conf").Parse(configText))

// supervise runs nginx for as long as standard input stays open, which is until
// the test closes it or its process ends, be it killed. Descriptor 3 is the
// listening socket, of which only nginx may keep a copy: without nginx,
// connections have to fail instead of waiting for it.
const supervise = `
"$1" -p "$2" -c nginx.conf >"$2/output.log" 2>&1 &
exec 3<&-
read -r _
kill $! && wait $!
`

// Server is a running nginx. What its locations do is up to nginx.conf.tmpl.
type Server struct {
	// URL is the base URL, without a slash at the end.
	URL string

	dir string
}

// Start starts an nginx on a free loopback port. It serves when Start returns
// and ends with the test. Without an installed nginx the test is skipped, see
// testdb.Missing.
func Start(t testing.TB) *Server {
	t.Helper()
	nginx, err := find()
	if err != nil {
		testdb.Missing(t, "nginx", fmt.Sprintf("install it (Debian: apt-get install nginx) (%v)", err))
	}
	listener, silent := listen(t), listen(t)
	server := &Server{URL: "http://" + listener.Addr().String(), dir: t.TempDir()}
	if err := server.configure(listener, silent); err != nil {
		t.Fatalf("testnginx: %v", err)
	}
	if err := server.launch(t, nginx, listener); err != nil {
		t.Fatalf("testnginx: launch %s: %v", nginx, err)
	}
	if err := server.await(t); err != nil {
		t.Fatalf("testnginx: %v\n%s", err, server.output())
	}
	return server
}

// Requests returns the requests nginx has received so far, in the order in
// which it was done with them, as "METHOD URI STATUS". Status 499 is a client
// that went away before the answer. An answered request is among them, unless
// its body is so large (beyond 4 KB) that nginx may have answered before it had
// arrived and still be waiting for the rest.
func (s *Server) Requests(t testing.TB) []string {
	t.Helper()
	// nginx writes to the log after it has answered. But its one worker is a
	// single thread: once it answers another request, it is through with the
	// former ones.
	if err := s.await(t); err != nil {
		t.Fatalf("testnginx: %v", err)
	}
	log, err := os.ReadFile(filepath.Join(s.dir, "access.log"))
	if err != nil {
		t.Fatalf("testnginx: read access log: %v", err)
	}
	return strings.FieldsFunc(string(log), func(r rune) bool { return r == '\n' })
}

// configure writes the configuration.
func (s *Server) configure(listener, silent net.Listener) error {
	var text bytes.Buffer
	err := config.Execute(&text, map[string]any{
		"Listen":  listener.Addr().String(),
		"Silent":  silent.Addr().String(),
		"Barrier": barrier,
		"Root":    os.Geteuid() == 0,
	})
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "nginx.conf"), text.Bytes(), 0o600); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return nil
}

// launch starts nginx under its supervisor and hands listener over to it, in
// the way nginx itself does when a new binary takes over from an old one. So
// nobody can take the port in between, and it accepts connections right away.
func (s *Server) launch(t testing.TB, nginx string, listener *net.TCPListener) error {
	socket, err := listener.File()
	if err != nil {
		return fmt.Errorf("listening socket: %w", err)
	}
	cmd := exec.Command("sh", "-c", supervise, "sh", nginx, s.dir)
	cmd.ExtraFiles = []*os.File{socket}
	cmd.Env = append(os.Environ(), "NGINX=3;")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	if err := errors.Join(cmd.Start(), socket.Close(), listener.Close()); err != nil {
		return err
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("testnginx: stop nginx: %v\n%s", err, s.output())
		}
	})
	return nil
}

// await returns once nginx has answered a request, which waits in the queue of
// the listening socket if it is too early.
func (s *Server) await(t testing.TB) error {
	client := http.Client{
		Timeout:   barrierTimeout,
		Transport: &http.Transport{DisableKeepAlives: true},
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+barrier, nil)
	if err != nil {
		return fmt.Errorf("barrier request: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("nginx does not answer: %w", err)
	}
	if response.StatusCode != http.StatusNoContent {
		err = fmt.Errorf("unexpected answer: %s", response.Status)
	}
	return errors.Join(err, response.Body.Close())
}

// output is what nginx has to say about its troubles.
func (s *Server) output() string {
	var text strings.Builder
	for _, name := range []string{"output.log", "error.log"} {
		content, _ := os.ReadFile(filepath.Join(s.dir, name)) // need not exist
		text.Write(content)
	}
	return text.String()
}

// find returns the nginx program, which an ordinary user's PATH often lacks.
func find() (string, error) {
	if _, err := exec.LookPath("sh"); err != nil {
		return "", err
	}
	path, err := exec.LookPath("nginx")
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, "nginx"))
	}
	return path, err
}

// listen opens a socket on a free loopback port for the duration of the test.
func listen(t testing.TB) *net.TCPListener {
	t.Helper()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatalf("testnginx: listen: %v", err)
	}
	t.Cleanup(func() { _ = listener.Close() }) // which launch may have done before
	return listener
}
