package testnginx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/hermeshttp/hermes/internal/testdb"
)

// holdEnv makes the test binary start an nginx and hold it until killed.
const holdEnv = "HERMES_TESTNGINX_HOLD"

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// client takes every answer as it comes, on a connection of its own.
var client = http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func TestLocations(t *testing.T) {
	t.Parallel()
	server := Start(t)
	tests := []struct {
		path   string
		status int
		header string // "Name: value"
		body   string
	}{
		{path: "/200", status: 200, body: "ok"},
		{path: "/204", status: 204},
		{path: "/301", status: 301, header: "Location: /200"},
		{path: "/302", status: 302, header: "Location: /200"},
		{path: "/303", status: 303, header: "Location: /200"},
		{path: "/307", status: 307, header: "Location: /200"},
		{path: "/308", status: 308, header: "Location: /200"},
		{path: "/loop", status: 307, header: "Location: /loop"},
		{path: "/303-404", status: 303, header: "Location: /404"},
		{path: "/to-https", status: 307, header: "Location: https://127.0.0.1:1/200"},
		{path: "/401", status: 401, header: `Www-Authenticate: Basic realm="testnginx"`},
		{path: "/404", status: 404},
		{path: "/429", status: 429, header: "Retry-After: 1"},
		{path: "/502", status: 502},
		{path: "/503", status: 503},
		{path: "/echo-method", status: 200, body: "{method}"},
		{path: "/anything-else", status: 404},
	}
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		for _, test := range tests {
			t.Run(method+test.path, func(t *testing.T) {
				response, body, err := send(t.Context(), method, server.URL+test.path, `{"a":1}`)
				require.NoError(t, err)
				assert.Equal(t, test.status, response.StatusCode)
				assert.Contains(t, response.Header.Get("Server"), "nginx")
				if name, value, ok := strings.Cut(test.header, ": "); ok {
					assert.Equal(t, value, response.Header.Get(name))
				}
				if test.body != "" {
					assert.Equal(t, strings.ReplaceAll(test.body, "{method}", method), body)
				}
			})
		}
	}
}

func TestDroppedConnection(t *testing.T) {
	t.Parallel()
	server := Start(t)
	_, _, err := send(t.Context(), http.MethodPost, server.URL+"/444", "hello")
	assert.ErrorIs(t, err, io.EOF)
	assert.Equal(t, []string{"POST /444 444"}, server.Requests(t))
}

func TestSlow(t *testing.T) {
	t.Parallel()
	server := Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, _, err := send(ctx, http.MethodPost, server.URL+"/slow", "hello")
	assert.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestLargeBody(t *testing.T) {
	t.Parallel()
	server := Start(t)
	for _, path := range []string{"/200", "/502"} { // discarded, and buffered in a file
		response, _, err := send(t.Context(), http.MethodPost, server.URL+path, strings.Repeat("x", 4<<20))
		require.NoError(t, err)
		assert.Equal(t, path, fmt.Sprintf("/%d", response.StatusCode))
	}
}

func TestRedirectLoopEnds(t *testing.T) {
	t.Parallel()
	server := Start(t)
	following := http.Client{Transport: client.Transport}
	response, err := following.Get(server.URL + "/loop")
	require.ErrorContains(t, err, "10 redirects")
	require.NoError(t, response.Body.Close())
	assert.Len(t, server.Requests(t), 10)
}

// TestRequests reads the log right after each answer: nothing may be missing.
func TestRequests(t *testing.T) {
	t.Parallel()
	server, other := Start(t), Start(t)
	assert.Empty(t, server.Requests(t))

	var want []string
	for i := range 50 {
		uri := fmt.Sprintf("/200?i=%d", i)
		want = append(want, "POST "+uri+" 200")
		_, body, err := send(t.Context(), http.MethodPost, server.URL+uri, strings.Repeat("x", 50*i))
		require.NoError(t, err)
		require.Equal(t, "ok", body)
		require.Equal(t, want, server.Requests(t))
	}
	assert.Empty(t, other.Requests(t))
}

func TestStops(t *testing.T) {
	t.Parallel()
	server := Start(t) // or skip
	t.Run("owner", func(t *testing.T) { server = Start(t) })
	_, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
	assert.Error(t, err)
	assert.NoDirExists(t, server.dir)
}

// TestKilled kills a test process that has a running nginx, in the way that
// leaves it no chance to clean up.
func TestKilled(t *testing.T) {
	t.Parallel()
	Start(t) // or skip
	self, err := os.Executable()
	require.NoError(t, err)

	// The child's descendants inherit the writing end, too, so that the end of
	// the file is the end of the last of them.
	alive, inherited, err := os.Pipe()
	require.NoError(t, err)
	defer alive.Close()
	require.NoError(t, alive.SetReadDeadline(time.Now().Add(time.Minute)))

	child := exec.Command(self, "-test.run=^TestHold$")
	child.Env = append(os.Environ(), holdEnv+"=1", "TMPDIR="+t.TempDir())
	child.ExtraFiles = []*os.File{inherited}
	stdin, err := child.StdinPipe() // never closed, keeps the child waiting
	require.NoError(t, err)
	defer stdin.Close()
	stdout, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	require.NoError(t, inherited.Close())

	var url string
	_, err = fmt.Fscanln(stdout, &url)
	require.NoError(t, err)
	_, body, err := send(t.Context(), http.MethodGet, url+"/200", "")
	require.NoError(t, err)
	assert.Equal(t, "ok", body)

	require.NoError(t, child.Process.Kill())
	assert.Error(t, child.Wait())
	_, err = io.Copy(io.Discard, alive)
	assert.NoError(t, err, "processes are left")
}

// TestHold is the child's part of TestKilled. In the parent it tests nothing,
// and does not skip either: no part of the suite is missing.
func TestHold(t *testing.T) {
	if os.Getenv(holdEnv) != "1" {
		return
	}
	fmt.Println(Start(t).URL)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func TestMissing(t *testing.T) {
	t.Setenv("PATH", "")
	t.Setenv("HERMES_REQUIRE_ALL", "")
	verdict := make(chan string, 1)
	go func() { // which the verdict ends, like that of a real test
		Start(&witness{TB: t, verdict: verdict})
		verdict <- "went on"
	}()
	assert.Contains(t, <-verdict, "SKIPPED, NOT TESTED: nginx is missing: install it")
}

// TestDoesNotStart makes sure that nginx's own words reach the test, at once.
func TestDoesNotStart(t *testing.T) {
	nginx, err := find()
	if err != nil {
		testdb.Missing(t, "nginx", err.Error())
	}
	listener := listen(t)
	server := &Server{URL: "http://" + listener.Addr().String(), dir: t.TempDir()}
	require.NoError(t, os.WriteFile(server.dir+"/nginx.conf", []byte("nonsense on;"), 0o600))
	failing := &witness{TB: t, verdict: make(chan string, 1)}
	t.Run("nginx", func(t *testing.T) {
		failing.TB = t
		require.NoError(t, server.launch(failing, nginx, listener))
		assert.Error(t, server.await(t))
	})
	assert.Contains(t, server.output(), `unknown directive "nonsense"`)
	assert.Contains(t, <-failing.verdict, `unknown directive "nonsense"`)
}

// witness records how a test ends.
type witness struct {
	testing.TB
	verdict chan string
}

func (w *witness) Errorf(format string, args ...any) { w.verdict <- fmt.Sprintf(format, args...) }

func (w *witness) Skipf(format string, args ...any) {
	w.verdict <- fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// send sends a request and returns the answer with its body read.
func send(ctx context.Context, method, url, body string) (*http.Response, string, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, "", err
	}
	content, err := io.ReadAll(response.Body)
	return response, string(content), errors.Join(err, response.Body.Close())
}
