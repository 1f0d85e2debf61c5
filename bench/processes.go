package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

func drainTogether(ctx context.Context, l *lab) (*contest, error) {
	n := l.pick(50_000, 2000)
	t, err := l.newTable(ctx, poolSize)
	if err != nil {
		return nil, err
	}
	c := &contest{
		conditions: fmt.Sprintf("%s rows a turn, each sent once; the receiver is a stub in each process; %d connections and %s in each",
			number(n), poolSize, passText()),
		rounds:  l.pick(5, 1),
		metrics: []metric{perSecond},
		end:     t.end,
	}
	for _, processes := range []int{1, 2, 4} {
		c.contestants = append(c.contestants, contestant{processNames[processes], func(ctx context.Context) (sample, error) {
			if err := t.fill(ctx, n); err != nil {
				return nil, err
			}
			return t.drainBy(ctx, processes, n)
		}})
	}
	for _, processes := range []int{2, 4} {
		c.goals = append(c.goals, ratio(perSecond, processNames[processes], processNames[1], atLeast, 0.85))
	}
	return c, nil
}

var processNames = map[int]string{1: "one process", 2: "two processes", 4: "four processes"}

// drainBy lets processes retry the rows of the table together, and makes sure that each row was sent once.
func (t *table) drainBy(ctx context.Context, processes, n int) (s sample, err error) {
	var children []*child
	defer func() {
		for _, c := range children {
			err = errors.Join(err, c.stop())
		}
	}()
	for range processes {
		c, err := startChild(ctx, task{DSN: t.dsn, Keys: true})
		if err != nil {
			return nil, err
		}
		children = append(children, c)
	}
	elapsed, err := timeTogether(children)
	if err != nil {
		return nil, err
	}
	sent := map[string]bool{}
	for _, c := range children {
		report, err := c.report()
		if err != nil {
			return nil, err
		}
		if err := noteSent(sent, report); err != nil {
			return nil, err
		}
	}
	left, err := remaining(t.db.WithContext(ctx))
	if err == nil && (left != 0 || len(sent) != n) {
		err = fmt.Errorf("of %d rows %d were sent and %d are left", n, len(sent), left)
	}
	return rate(n, elapsed), err
}

// timeTogether lets all make their passes at the same time, and tells when the last has ended.
func timeTogether(children []*child) (time.Duration, error) {
	start := time.Now()
	for _, c := range children {
		if err := c.begin(); err != nil {
			return 0, err
		}
	}
	for _, c := range children {
		if err := c.await(); err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

// noteSent adds what a process sent to what others did.
func noteSent(sent map[string]bool, report *passReport) error {
	for _, key := range report.Keys {
		if sent[key] {
			return fmt.Errorf("the message %s was sent twice", key)
		}
		sent[key] = true
	}
	return nil
}
