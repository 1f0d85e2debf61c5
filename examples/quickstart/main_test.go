package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestQuickstartTellsTheWholeStory(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, run(context.Background(), &out, "", ""))

	for _, line := range []string{
		`POST /healthy  delivered, 1 attempt`,
		`POST /flaky    delivered, 3 attempts`,
		`POST /picky    refused \(422\), 1 attempt, saved`,
		`POST /down     no answer, 4 attempts, saved`,
		`due      status   0  attempts 4`,
		`(?s)2\. The receiver is back.*POST: delivered, 1 attempt.*failed_message:\n   \S+  invalid  status 422  attempts 1  \S+\n\nWhat was refused`,
	} {
		assert.Regexp(t, line, out.String())
	}
}

func TestQuickstartAgainstSomethingReal(t *testing.T) {
	t.Parallel()
	receiver := httptest.NewServer(http.NotFoundHandler())
	defer receiver.Close()
	file := filepath.Join(t.TempDir(), "with #odd? name.db")

	for range 2 { // the second run finds the first one's row
		var out bytes.Buffer
		require.NoError(t, run(context.Background(), &out, receiver.URL+"/hook", file))
		assert.Regexp(t, `POST /hook     refused \(404\), 1 attempt, saved`, out.String())
	}
	assert.FileExists(t, file)
}
