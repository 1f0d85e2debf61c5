package main

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hermeshttp/hermes/internal/testdb"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		main()
		return
	}
	os.Exit(testdb.Main(m))
}

// TestMeasurements makes every measurement on a small scale. Each checks for itself that the work was done: that all rows
// are there, or were sent, and none twice.
func TestMeasurements(t *testing.T) {
	t.Parallel()
	for _, m := range measurements() {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			server := &server{}
			if m.needsPostgres {
				server.dsn = testdb.PostgresDSN(t)
			}
			l := &lab{quick: true, rounds: 2, dir: t.TempDir(), progress: t.Output(), server: server}

			result, err := m.measure(t.Context(), l)

			require.NoError(t, err)
			assert.Equal(t, 2, result.Rounds)
			require.NotEmpty(t, result.Standings)
			for _, s := range result.Standings {
				for _, metric := range result.Metrics {
					assert.Positive(t, s.Values[metric].Max, "%s: %s", s.Name, metric)
				}
			}
			require.NotEmpty(t, result.Goals)
			for _, g := range result.Goals {
				assert.False(t, math.IsNaN(g.Measured.Median) || math.IsInf(g.Measured.Median, 0), g.What)
				assert.Positive(t, g.Measured.Max, g.What)
				assert.Equal(t, g.Relation.holds(g.Measured.Median, g.Limit), g.Met, g.What)
				assert.Contains(t, result.markdown(), g.What)
			}
		})
	}
}

func TestReportFiles(t *testing.T) {
	t.Parallel()
	markdown, encoded := filepath.Join(t.TempDir(), "bench.md"), filepath.Join(t.TempDir(), "bench.json")
	var stdout, stderr strings.Builder

	err := run(t.Context(), []string{"-quick", "-run", "^success/stub$", "-md", markdown, "-json", encoded}, &stdout, &stderr)

	require.NoError(t, err)
	assert.Contains(t, stderr.String(), "round 3/3")
	content, err := os.ReadFile(markdown)
	require.NoError(t, err)
	assert.Equal(t, stdout.String(), string(content))
	assert.Contains(t, stdout.String(), "| Hermes / net/http with a context timeout, ns/op | ≤ 1.3 |")
	content, err = os.ReadFile(encoded)
	require.NoError(t, err)
	var r report
	require.NoError(t, json.Unmarshal(content, &r))
	require.Len(t, r.Results, 1)
	assert.Equal(t, "success/stub", r.Results[0].Name)
	assert.Positive(t, r.Results[0].Goals[0].Measured.Median)
}

func TestArguments(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-run", "nothing of the kind"}, {"-run", "("}, {"success"}} {
		var stdout, stderr strings.Builder
		assert.Error(t, run(t.Context(), args, &stdout, &stderr), args)
	}
}

func TestCluster(t *testing.T) {
	t.Parallel()
	c, err := startCluster(t.Context())
	if err != nil && strings.Contains(err.Error(), "no initdb") {
		testdb.Missing(t, "PostgreSQL", err.Error())
	}
	require.NoError(t, err)
	conn, err := pgx.Connect(t.Context(), c.dsn)
	require.NoError(t, err)
	var directory, fsync string
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT current_setting('data_directory'), current_setting('fsync')").Scan(&directory, &fsync))
	assert.Equal(t, "on", fsync, "without it, no number is worth anything")

	require.NoError(t, c.stop())

	assert.NoDirExists(t, directory)
	_, err = pgx.Connect(t.Context(), c.dsn)
	assert.Error(t, err)
}

// TestTurns makes sure that each is first as often as the others, and that ratios are of the same round.
func TestTurns(t *testing.T) {
	t.Parallel()
	values := map[string][]float64{"a": {1, 2, 3}, "b": {2, 2, 2}, "c": {9, 9, 9}}
	c := contest{rounds: 3, metrics: []metric{perSecond}, goals: []goal{ratio(perSecond, "a", "b", atLeast, 1)}}
	var order []string
	for _, name := range []string{"a", "b", "c"} {
		c.contestants = append(c.contestants, contestant{name, func(context.Context) (sample, error) {
			value := values[name][0]
			values[name] = values[name][1:]
			order = append(order, name)
			return sample{perSecond: value}, nil
		}})
	}
	var res result
	require.NoError(t, c.hold(t.Context(), &lab{progress: t.Output()}, &res))

	assert.Equal(t, "a b c b c a c a b", strings.Join(order, " "))
	assert.Equal(t, spread{Median: 2, Min: 1, Max: 3}, res.Standings[0].Values[perSecond])
	assert.Equal(t, spread{Median: 1, Min: 0.5, Max: 1.5}, res.Goals[0].Measured)
	assert.True(t, res.Goals[0].Met)
}

// TestFailure makes sure that what could not be measured is said, and everything cleaned up.
func TestFailure(t *testing.T) {
	t.Parallel()
	ended := false
	m := measurement{name: "x", about: "what fails", prepare: func(context.Context, *lab) (*contest, error) {
		return &contest{rounds: 1, end: func() error { ended = true; return nil }, contestants: []contestant{
			{"a", func(context.Context) (sample, error) { return nil, errors.New("out of luck") }},
		}}, nil
	}}
	result, err := m.measure(t.Context(), &lab{progress: t.Output()})
	assert.ErrorContains(t, err, "out of luck")
	assert.Contains(t, result.markdown(), "NOT MEASURED: a: out of luck")
	assert.True(t, ended)
}

func TestSentTwice(t *testing.T) {
	t.Parallel()
	sent := map[string]bool{}
	require.NoError(t, noteSent(sent, &passReport{Keys: []string{"1", "2"}}))
	require.NoError(t, noteSent(sent, &passReport{Keys: []string{"3"}}))
	assert.ErrorContains(t, noteSent(sent, &passReport{Keys: []string{"4", "2"}}), "2 was sent twice")
}

func TestProgressInBetween(t *testing.T) {
	t.Parallel()
	r := passReport{Progress: []progress{{0, time.Second}, {100, 2 * time.Second}, {200, 6 * time.Second}}}
	assert.Equal(t, 1500*time.Millisecond, r.at(50))
	assert.Equal(t, 2*time.Second, r.at(100))
	assert.Equal(t, 5*time.Second, r.at(175))
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	for value, want := range map[float64]string{
		0: "0", 4: "4", 1.3: "1.3", 1.2345: "1.23", 0.01234: "0.0123", 12.34: "12.3", 99.96: "100", 123.4: "123", 999.9: "1,000",
		1234: "1,234", 1234567: "1,234,567", -1234: "-1,234", -123: "-123",
	} {
		assert.Equal(t, want, number(value))
	}
	assert.Equal(t, "50,000", number(50000))
	assert.Equal(t, "2 (1…3)", spread{Median: 2, Min: 1, Max: 3}.String())
	assert.Equal(t, "2", spread{Median: 2, Min: 1.9999, Max: 2.0001}.String())
}
