package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// What is of interest in a long pass, beside its rate.
const (
	firstTenth metric = "rows/s, first tenth"
	lastTenth  metric = "rows/s, last tenth"
	memory     metric = "MB above start"
)

func drainMillion(ctx context.Context, l *lab) (*contest, error) {
	n := l.pick(1_000_000, 10_000)
	t, err := l.newTable(ctx, poolSize)
	if err != nil {
		return nil, err
	}
	return &contest{
		conditions: fmt.Sprintf("%s rows; %d connections; %s; memory is the resident set, looked at ten times a second", number(n), poolSize, passText()),
		rounds:     1,
		metrics:    []metric{perSecond, firstTenth, lastTenth, memory},
		contestants: []contestant{{byHermes, func(ctx context.Context) (sample, error) {
			l.say("  writing %s rows", number(n))
			if err := t.fill(ctx, n); err != nil {
				return nil, err
			}
			return t.drainWatched(ctx, n)
		}}},
		goals: []goal{
			{"memory, " + string(memory), atMost, 150, func(r round) float64 { return r[byHermes][memory] }},
			{"last tenth / first tenth, rows/s", atLeast, 0.7, func(r round) float64 { return r[byHermes][lastTenth] / r[byHermes][firstTenth] }},
		},
		end: t.end,
	}, nil
}

// drainWatched lets a process of its own retry all rows, so that nobody else's memory is counted.
func (t *table) drainWatched(ctx context.Context, n int) (s sample, err error) {
	c, err := startChild(ctx, task{DSN: t.dsn, Memory: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	elapsed, err := timeTogether([]*child{c})
	if err != nil {
		return nil, err
	}
	report, err := c.report()
	if err != nil {
		return nil, err
	}
	if report.Summary.Delivered != int64(n) || report.Sent != int64(n) {
		return nil, fmt.Errorf("of %d rows %d were sent: %+v", n, report.Sent, report.Summary)
	}
	s = rate(n, elapsed)
	tenth := int64(n / 10)
	s[firstTenth] = float64(tenth) / report.at(tenth).Seconds()
	s[lastTenth] = float64(tenth) / (report.at(int64(n)) - report.at(int64(n)-tenth)).Seconds()
	s[memory] = float64(report.MemoryGrowth) / 1e6
	return s, nil
}

// at is when this many rows were delivered. Between two reports of progress, rows are taken to come evenly.
func (r *passReport) at(delivered int64) time.Duration {
	var before progress
	for _, p := range r.Progress {
		if p.Delivered >= delivered {
			part := float64(delivered-before.Delivered) / float64(p.Delivered-before.Delivered)
			return before.Elapsed + time.Duration(part*float64(p.Elapsed-before.Elapsed))
		}
		before = p
	}
	return before.Elapsed
}
