package uuidv7

import (
	"regexp"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNewIsAVersion7UUIDOfThisMoment(t *testing.T) {
	t.Parallel()
	before := time.Now().UnixMilli()
	id := New()
	after := time.Now().UnixMilli()

	assert.Regexp(t, regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`), id)
	ms, err := strconv.ParseInt(strings.ReplaceAll(id, "-", "")[:12], 16, 64)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, ms, before)
	assert.LessOrEqual(t, ms, after)
}

func TestNewIsUniqueAndSortsByTime(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	var ids []string
	for range 200 {
		id := New()
		require.False(t, seen[id])
		seen[id] = true
		ids = append(ids, id)
		for start := time.Now(); time.Since(start) < 2*time.Microsecond; {
			continue // two identifiers within one 1/4096 ms may stand in either order
		}
	}
	assert.True(t, sort.StringsAreSorted(ids))
}

func BenchmarkNew(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		New()
	}
}
