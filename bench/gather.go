package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hermeshttp/hermes"
)

const milliseconds metric = "ms"

// gathers is how often rows are gathered in a turn.
const gathers = 50

func gatherFromLarge(ctx context.Context, l *lab) (c *contest, err error) {
	c = &contest{
		conditions: fmt.Sprintf("the median of %d gathers a turn; releasing the rows again is not counted", gathers),
		rounds:     l.pick(9, 2),
		metrics:    []metric{milliseconds},
		end:        func() error { return nil },
	}
	for _, n := range []int{1000, l.pick(1_000_000, 10_000)} {
		t, err := l.newTable(ctx, poolSize)
		if err != nil {
			return nil, errors.Join(err, c.end())
		}
		others := c.end
		c.end = func() error { return errors.Join(others(), t.end()) }
		client, err := hermes.New(t.db)
		if err == nil {
			l.say("  writing %s rows", number(n))
			err = t.fill(ctx, n)
		}
		if err != nil {
			return nil, errors.Join(err, c.end())
		}
		c.contestants = append(c.contestants, contestant{"of " + number(n) + " rows", func(ctx context.Context) (sample, error) {
			return gather(ctx, client)
		}})
	}
	c.goals = []goal{ratio(milliseconds, c.contestants[1].name, c.contestants[0].name, atMost, 1.5)}
	return c, nil
}

// gather gathers 100 rows, again and again.
func gather(ctx context.Context, client *hermes.Client) (sample, error) {
	var times []float64
	for range gathers {
		start := time.Now()
		msgs, err := client.GatherFailedMessagesForRetry(ctx, hermes.GatherOptions{Limit: 100})
		times = append(times, time.Since(start).Seconds()*1000)
		if err == nil && len(msgs) != 100 {
			err = fmt.Errorf("gathered %d rows", len(msgs))
		}
		if err := errors.Join(err, client.Release(ctx, msgs...)); err != nil {
			return nil, err
		}
	}
	return sample{milliseconds: median(times)}, nil
}
