package testcrash

import (
	"context"
	"errors"
	"time"

	"github.com/hermeshttp/hermes"
)

// job is a way to retry what is in the table.
type job string

const (
	noJob     job = ""
	passes    job = "passes"    // RetryAll, again and again
	gathering job = "gathering" // the README's job
	own       job = "own"       // each message that was saved, by its sender, at once
)

const (
	jobPause   = 100 * time.Millisecond
	hurryPause = 10 * time.Millisecond // to be faster than others
)

// beRetrier retries what is due, again and again, until it is told to end.
func beRetrier(ctx context.Context, spec *childSpec, log *eventLog) error {
	c, err := newClient(spec, log, newWatcher(spec, log), hermes.WithMaxRetryAttempts(1))
	if err != nil {
		return err
	}
	log.note(ready, 0, 0, "")
	pause := jobPause
	if spec.Unfenced {
		pause = hurryPause // retry while the sender is sending
	}
	retryEvery(ctx, pause, c, spec.Job, log)
	return nil
}

func retryEvery(ctx context.Context, pause time.Duration, c *hermes.Client, how job, log *eventLog) {
	retry := makePass
	if how == gathering {
		retry = retryGathered
	}
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		if err := retry(ctx, c); err != nil && ctx.Err() == nil {
			log.failed(err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func makePass(ctx context.Context, c *hermes.Client) error {
	_, err := c.RetryAll(ctx, hermes.RetryOptions{Concurrency: 8})
	return err
}

func retryGathered(ctx context.Context, c *hermes.Client) error {
	for {
		msgs, err := c.GatherFailedMessagesForRetry(ctx, hermes.GatherOptions{Limit: 20})
		if err != nil || len(msgs) == 0 {
			return err
		}
		for _, msg := range msgs {
			_, err := c.RetryMessage(ctx, msg)
			if err != nil {
				return errors.Join(err, c.Release(context.WithoutCancel(ctx), msgs...))
			}
		}
	}
}
