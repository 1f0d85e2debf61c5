package hermes

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// RetryOptions says which rows a pass retries, and how fast. Its zero value retries all that are due.
type RetryOptions struct {
	Filter      Filter  // among those due
	Concurrency int     // attempts at a time; 0: 64. With a single host, PerHost is what counts
	PerHost     int     // attempts at a time to one host, by this pass; 0: 16
	BatchSize   int     // rows claimed at a time, at most; 0: 500
	RatePerHost float64 // attempts begun per second to one host, by this pass; 0: as many as there can be

	// Progress is called as outcomes are recorded, a few times a second at most and once at the end, by the goroutine that
	// called RetryAll: while it runs, the pass stands still.
	Progress func(RetrySummary)
}

// RetrySummary counts what became of the rows of a pass, as far as it is recorded.
type RetrySummary struct {
	Delivered int64 // their rows are deleted
	Failed    int64 // to be retried later, or exhausted
	Invalid   int64 // not to succeed as they are
	Released  int64 // given back unsent: the pass was ended, or their host given up
	Elapsed   time.Duration
}

func (o *RetryOptions) setDefaults() error {
	var errs []error
	set := func(name string, n *int, value int) {
		if *n < 0 {
			errs = append(errs, fmt.Errorf("%w: RetryOptions.%s: %d is negative", ErrInvalidOption, name, *n))
		} else if *n == 0 {
			*n = value
		}
	}
	set("Concurrency", &o.Concurrency, 64)
	set("PerHost", &o.PerHost, 16)
	set("BatchSize", &o.BatchSize, 500)
	if o.RatePerHost < 0 || math.IsNaN(o.RatePerHost) {
		errs = append(errs, fmt.Errorf("%w: RetryOptions.RatePerHost: %v", ErrInvalidOption, o.RatePerHost))
	}
	return errors.Join(errs...)
}

// RetryAll makes one pass over the rows of this client's WithSender that were due when it started: one attempt for each,
// those due longest first, many at a time. WithMaxRetryAttempts does not count; only an attempt that met a kept-alive
// connection that had died is repeated, at once and once. What is delivered is deleted, what failed is recorded and due
// again later, not within the pass. Any number of instances may make passes at the same time: rows are claimed in batches,
// and the claims kept as long as they are needed.
//
// A host that is slow or dead does not hold up the others: PerHost bounds what it takes of the pass, and after five
// attempts, one after the other, to which it gave no answer, its rows are given back, without an attempt counted for those
// that were not sent. They stay due: the next pass tries it again. Memory does not grow with the number of rows: a few
// batches are held, smaller ones of rows with large bodies, and of a slow host no more than it can be sent soon.
//
// When ctx ends, attempts in flight are canceled and recorded, and rows not yet sent are given back; the error is ctx's.
// After Shutdown, attempts in flight may finish first; the error is ErrShutdown, which for a job is no failure: a service
// that is told to end calls Shutdown and leaves ctx alone. If the database does not answer for
// WithSaveTimeout the pass ends with its error: what was delivered but could not be deleted is sent again when its claim
// has run out, with the same idempotency key. The summary is right in every case.
//
// Rows suspected of ending the process that sends them (see GatherFailedMessagesForRetry) come last, one at a time.
func (c *Client) RetryAll(ctx context.Context, opts RetryOptions) (RetrySummary, error) {
	if err := opts.setDefaults(); err != nil {
		return RetrySummary{}, err
	}
	if err := ctx.Err(); err != nil {
		return RetrySummary{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	whole := &outgoing{} // Shutdown waits for the pass as for a message
	if !c.begin(whole, cancel) {
		return RetrySummary{}, ErrShutdown
	}
	defer c.end(whole)
	p := newPass(ctx, c, opts)
	err := p.run()
	p.report(true)
	return p.summary, err
}
