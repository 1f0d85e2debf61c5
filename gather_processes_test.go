package hermes_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

// TestTwoProcessesGatherAtOnce: each row is gathered exactly once, and neither process does nearly all of the work.
func TestTwoProcessesGatherAtOnce(t *testing.T) {
	eachDSN(t, func(t *testing.T, dsn string) {
		const rows = 10_000
		db := testdb.Open(t, dsn)
		c := newClient(t, db)
		multiply(t, db, saved(t, c).ID, rows-1)

		var all []string
		for i, r := range inProcesses(t, 2, "gather", dsn) {
			t.Logf("process %d gathered %d rows in %v", i+1, len(r.IDs), r.Elapsed)
			assert.GreaterOrEqual(t, len(r.IDs), rows/5, "process %d got less than its share", i+1)
			all = append(all, r.IDs...)
		}
		assert.Len(t, all, rows)
		slices.Sort(all)
		assert.Len(t, slices.Compact(all), rows, "rows were gathered twice")
		assert.EqualValues(t, rows, count(t, c, hermes.Filter{States: []hermes.State{hermes.StateClaimed}}))
	})
}
