package testcrash

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

var databases = map[string]func(testing.TB) string{"sqlite": testdb.SQLiteDSN, "postgres": testdb.PostgresDSN}

func TestCrash(t *testing.T) {
	var all results
	t.Run("databases", func(t *testing.T) {
		for database, newDSN := range databases {
			for _, d := range []hermes.Durability{hermes.SaveAfterRetries, hermes.SaveBeforeRetries, hermes.SaveBeforeSend} {
				t.Run(database+"/"+nameOf(d), func(t *testing.T) {
					t.Parallel()
					testKept(t, &all, database, newRun(t, newDSN(t), d, false))
				})
			}
			t.Run(database+"/unfenced", func(t *testing.T) {
				t.Parallel()
				testUnfenced(t, &all, database, newRun(t, newDSN(t), hermes.SaveBeforeSend, true))
			})
		}
	})
	table := all.markdown()
	t.Log("\n" + table)
	if *reportFile != "" {
		require.NoError(t, os.WriteFile(*reportFile, []byte(table), 0o644))
	}
}

// testKept kills senders and finds all promises kept.
func testKept(t *testing.T, all *results, database string, r *run) {
	d := r.base.Durability
	r.do(*cycles)
	row := r.result(nameOf(d), database, d)
	all.add(row)
	assert.Zero(t, row.Lost, "lost: %v", describe(row.lost))
	assert.Zero(t, row.OtherKey, "messages with several idempotency keys")
	assert.Zero(t, row.Simultaneous, "sends while another process was sending the same message: %v", describe(row.simultaneous))
	for _, p := range placed {
		assert.GreaterOrEqual(t, row.kills[p], max(1, *cycles*15/100), "kills: %s", p)
	}
	r.checkProblems(t)
	if d != hermes.SaveAfterRetries {
		return
	}
	control := r.result("control: "+nameOf(d)+", judged as SaveBeforeSend", database, hermes.SaveBeforeSend)
	control.control = true
	all.add(control)
	assert.NotZero(t, control.Lost, "the harness does not notice lost messages")
}

// testUnfenced shows that the harness notices when messages are sent by two processes at a time.
func testUnfenced(t *testing.T, all *results, database string, r *run) {
	r.do(max(20, *cycles/20))
	row := r.result("control: SaveBeforeSend, unfenced", database, hermes.SaveBeforeSend)
	row.control = true
	all.add(row)
	assert.NotZero(t, row.Simultaneous, "the harness does not notice simultaneous sends; does it still rewrite the statements?")
	r.checkProblems(t)
}

func (r *run) result(title, database string, d hermes.Durability) result {
	return result{verdict: r.journal.judge(d), title: title, database: database, kills: r.kills, elapsed: time.Since(r.started)}
}

// checkProblems reports what should not have happened, and shows some of what may.
func (r *run) checkProblems(t *testing.T) {
	r.journal.mu.Lock()
	defer r.journal.mu.Unlock()
	assert.Empty(t, r.journal.problems)
	refusals := 0
	for _, m := range r.journal.messages {
		if m.isRefused {
			refusals++
			if refusals <= 3 {
				t.Logf("refused: %d: %s", m.number, m.lastRefusal)
			}
		}
	}
	t.Logf("%d refusals, %d errors: %q", refusals, len(r.journal.errors), r.journal.errors[:min(3, len(r.journal.errors))])
}

func describe(msgs []*message) []string {
	var all []string
	for _, m := range msgs[:min(10, len(msgs))] {
		all = append(all, fmt.Sprintf("%+v", *m))
	}
	return all
}
