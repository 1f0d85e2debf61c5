package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// lab is what a measurement works with.
type lab struct {
	quick    bool
	rounds   int    // 0: as many as the measurement needs
	dir      string // for files
	progress io.Writer
	server   *server
}

// pick is a size: the full one, or the one for a quick run.
func (l *lab) pick(full, quick int) int {
	if l.quick {
		return quick
	}
	return full
}

// say tells whoever waits for the results that something happens.
func (l *lab) say(format string, args ...any) {
	fmt.Fprintf(l.progress, format+"\n", args...) //nolint:errcheck // nobody may be looking
}

// measurement is one question, answered by a contest.
type measurement struct {
	name, about   string
	needsPostgres bool
	prepare       func(context.Context, *lab) (*contest, error)
}

// measurements are all there are, those that take longest last.
func measurements() []measurement {
	return []measurement{
		{"success/stub", "what a message costs that is delivered at once: a POST of 1 KiB over a stub RoundTripper", false, successOnStub},
		{"success/loopback", "the same over a kept-alive loopback connection", false, successOnLoopback},
		{"save/postgres", "64 senders whose messages all fail, each message a row of PostgreSQL", true, saveOnPostgres},
		{"save/sqlite", "the same on SQLite", false, saveOnSQLite},
		{"drain/postgres/stub", "retrying rows of 1 KiB on PostgreSQL, the receiver a stub RoundTripper", true, drainPostgresToStub},
		{"drain/postgres/loopback", "the same, the receiver an HTTP server on the loopback interface", true, drainPostgresToLoopback},
		{"drain/sqlite", "retrying rows of 1 KiB on SQLite, the receiver a stub RoundTripper", false, drainSQLite},
		{"processes", "processes that retry the rows of one PostgreSQL table together", true, drainTogether},
		{"gather", "gathering 100 rows on PostgreSQL, from a small table and a large one", true, gatherFromLarge},
		{"million", "retrying a large table on PostgreSQL in one pass, in a process of its own", true, drainMillion},
	}
}

// chosen are the measurements whose names match.
func chosen(only *regexp.Regexp) []measurement {
	return slices.DeleteFunc(measurements(), func(m measurement) bool { return !only.MatchString(m.name) })
}

func names() string {
	var all []string
	for _, m := range measurements() {
		all = append(all, m.name)
	}
	return strings.Join(all, ", ")
}

// measure answers the question. The result says so if that failed.
func (m measurement) measure(ctx context.Context, l *lab) (*result, error) {
	res := &result{Name: m.name, About: m.about}
	c, err := m.prepare(ctx, l)
	if err == nil {
		err = c.hold(ctx, l, res)
	}
	if err != nil {
		res.Error = err.Error()
	}
	return res, err
}
