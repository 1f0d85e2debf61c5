package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// metric is what is measured, by its unit.
type metric string

const (
	nsPerOp     metric = "ns/op"
	bytesPerOp  metric = "B/op"
	allocsPerOp metric = "allocs/op"
	perSecond   metric = "rows/s"
)

// sample is what one contestant's turn yields.
type sample map[metric]float64

// round is a turn of everyone, by name.
type round map[string]sample

// contestant is one way of doing the work. Its turn prepares, does the work once, checks that it was done, and
// returns what it cost.
type contestant struct {
	name string
	turn func(context.Context) (sample, error)
}

// contest lets contestants take turns, A B C B C A C A B …, because a machine's speed drifts: what is compared has
// been measured one right after the other, and nobody always comes first.
type contest struct {
	conditions  string // under which it is held
	rounds      int
	metrics     []metric
	contestants []contestant
	goals       []goal
	end         func() error // nil: nothing to clean up
}

// goal is a limit for something that every round yields; the median counts.
type goal struct {
	what     string
	relation relation
	limit    float64
	value    func(round) float64
}

type relation string

const (
	atMost  relation = "≤"
	atLeast relation = "≥"
	below   relation = "<"
)

func (r relation) holds(value, limit float64) bool {
	switch r {
	case atMost:
		return value <= limit
	case atLeast:
		return value >= limit
	}
	return value < limit
}

// ratio is a goal for what a contestant needs, or does, in proportion to another in the same round.
func ratio(m metric, of, to string, is relation, limit float64) goal {
	return goal{what: fmt.Sprintf("%s / %s, %s", of, to, m), relation: is, limit: limit, value: func(r round) float64 {
		return r[of][m] / r[to][m]
	}}
}

// hold holds the contest and notes its result.
func (c *contest) hold(ctx context.Context, l *lab, res *result) (err error) {
	if c.end != nil {
		defer func() { err = errors.Join(err, c.end()) }()
	}
	if l.rounds > 0 {
		c.rounds = l.rounds
	}
	var rounds []round
	for i := range c.rounds {
		r, err := c.round(ctx, l, i)
		if err != nil {
			return err
		}
		rounds = append(rounds, r)
	}
	res.Conditions, res.Rounds, res.Metrics = c.conditions, c.rounds, c.metrics
	res.Standings, res.Goals = c.standings(rounds), c.verdicts(rounds)
	return nil
}

func (c *contest) round(ctx context.Context, l *lab, i int) (round, error) {
	r := round{}
	for j := range c.contestants {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		one := c.contestants[(i+j)%len(c.contestants)]
		s, err := one.turn(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", one.name, err)
		}
		r[one.name] = s
		if i%(c.rounds/10+1) == 0 { // of many short rounds, a few will do
			l.say("  round %d/%d: %s: %s", i+1, c.rounds, one.name, s.text(c.metrics))
		}
	}
	return r, nil
}

func (s sample) text(metrics []metric) string {
	var parts []string
	for _, m := range metrics {
		parts = append(parts, number(s[m])+" "+string(m))
	}
	return strings.Join(parts, ", ")
}

func (c *contest) standings(rounds []round) []standing {
	var all []standing
	for _, one := range c.contestants {
		values := map[metric]spread{}
		for _, m := range c.metrics {
			values[m] = spreadOf(rounds, func(r round) float64 { return r[one.name][m] })
		}
		all = append(all, standing{Name: one.name, Values: values})
	}
	return all
}

func (c *contest) verdicts(rounds []round) []verdict {
	var all []verdict
	for _, g := range c.goals {
		measured := spreadOf(rounds, g.value)
		all = append(all, verdict{What: g.what, Relation: g.relation, Limit: g.limit, Measured: measured,
			Met: g.relation.holds(measured.Median, g.limit)})
	}
	return all
}
