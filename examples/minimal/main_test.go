package main

import (
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMinimalProgram(t *testing.T) {
	t.Parallel()
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusGone)
	}))
	defer receiver.Close()
	program := filepath.Join(t.TempDir(), "minimal")
	out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)

	run := exec.Command(program, receiver.URL)
	run.Dir = t.TempDir()
	out, err = run.CombinedOutput()

	require.NoError(t, err, "%s", out)
	assert.Regexp(t, `invalid 410 [0-9a-f-]{36}\n$`, string(out))
	assert.FileExists(t, filepath.Join(run.Dir, "hermes.db"))
}
