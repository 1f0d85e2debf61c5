package hermes_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDocsShowCodeThatCompiles: every Go block of the README and of docs that is longer than three lines stands in a Go
// file too.
func TestDocsShowCodeThatCompiles(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	var text strings.Builder
	for _, page := range append(pages, "README.md") {
		content, err := os.ReadFile(page)
		require.NoError(t, err)
		text.Write(content)
	}
	var sources strings.Builder
	require.NoError(t, filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		text, err := os.ReadFile(path)
		sources.Write(text)
		return err
	}))
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(text.String(), -1)
	require.NotEmpty(t, blocks)
	for _, block := range blocks {
		if strings.Count(block[1], "\n") > 3 {
			assert.True(t, strings.Contains(sources.String(), block[1]), "in no Go file:\n%s", block[1])
		}
	}
}
