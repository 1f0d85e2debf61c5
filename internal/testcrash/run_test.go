package testcrash

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

const (
	// mostVisits is how often a sender comes to the place where it is to be killed, until it stays there.
	mostVisits = 4
	// arrival bounds how long a sender takes to where it is to be killed.
	arrival = time.Minute
	// drainTime is how long the rest may take once all claims have run out.
	drainTime = 2 * time.Minute
)

// run is one run of the harness.
type run struct {
	t        *testing.T
	seed     uint64
	rng      *rand.Rand
	db       *gorm.DB
	base     childSpec // what all children are told
	journal  *journal
	receiver *receiver
	retriers []*process
	kills    map[phase]int
	started  time.Time
}

// newRun prepares a run: an empty table and a receiver.
func newRun(t *testing.T, dsn string, d hermes.Durability, isUnfenced bool) *run {
	t.Helper()
	r := &run{t: t, journal: newJournal(), kills: map[phase]int{}, started: time.Now(), db: testdb.Open(t, dsn)}
	r.seed = cmp.Or(*seed, rand.Uint64()>>1)
	r.rng = rand.New(rand.NewPCG(r.seed, 0))
	c, err := hermes.New(r.db)
	require.NoError(t, err)
	require.NoError(t, c.Migrate(t.Context()))
	receiver, server := listenAndServe(r.journal)
	t.Cleanup(server.Close)
	r.receiver = receiver
	r.base = childSpec{DSN: dsn, Receiver: server.URL, Durability: d, Unfenced: isUnfenced}
	return r
}

// do kills that many senders and waits until nothing is left to retry. Whatever fails, there is something to judge.
func (r *run) do(kills int) {
	r.t.Logf("%d kills, -crash.seed %d", kills, r.seed)
	for _, how := range []job{passes, gathering} {
		spec := r.base
		spec.Name, spec.Job = "retrier-"+string(how), how
		p, err := start(spec, r.journal)
		require.NoError(r.t, err)
		r.t.Cleanup(func() { _ = p.kill() })
		r.retriers = append(r.retriers, p)
	}
	assert.NoError(r.t, r.killAll(plan(r.rng, kills)))
	assert.NoError(r.t, r.drain())
	for _, p := range r.retriers {
		assert.NoError(r.t, p.end(arrival))
	}
}

// killAll makes a cycle for each phase.
func (r *run) killAll(phases []phase) error {
	reported := time.Now()
	for i, p := range phases {
		if err := r.cycle(i+1, p); err != nil {
			return err
		}
		r.kills[p]++
		if time.Since(reported) > 10*time.Second {
			reported = time.Now()
			r.t.Logf("%d of %d kills after %v", i+1, len(phases), time.Since(r.started).Round(time.Second))
		}
	}
	return nil
}

// cycle starts a sender and kills it.
func (r *run) cycle(number int, at phase) error {
	spec := r.base
	spec.IsSender, spec.Name, spec.First = true, fmt.Sprintf("sender-%d", number), number*senderNumbers
	spec.Seed, spec.Phase = r.rng.Uint64(), at
	spec.Point, spec.Visit = pointOf(at, spec.Durability, r.rng), 1+r.rng.IntN(mostVisits)
	if at == waiting {
		spec.Visit = 1 + r.rng.IntN(senderTasks-1) // not more messages than tasks come to wait
	}
	if at == beforePurge || at == anyTime { // who saves after the retries deletes rows in no other way
		spec.Job = []job{passes, gathering, own}[r.rng.IntN(3)]
	}
	p, err := start(spec, r.journal)
	if err != nil {
		return err
	}
	err = r.await(p, at)
	if errors.Is(err, errEnded) {
		return err
	}
	return errors.Join(err, p.kill())
}

var errEnded = errors.New("ended by itself")

// await waits until a sender is where it is to be killed.
func (r *run) await(p *process, at phase) error {
	timeout := time.After(arrival)
	select {
	case <-p.ready:
	case <-p.ended:
		return fmt.Errorf("%s: %w: %w", p.name, errEnded, p.err)
	case <-timeout:
		return fmt.Errorf("%s does not begin", p.name)
	}
	there, soon := p.there, time.After(time.Hour)
	if at == anyTime {
		soon = time.After(time.Duration(r.rng.Int64N(int64(80 * time.Millisecond))))
	}
	for {
		select {
		case <-there:
			// The others of its messages go on for a moment, so that this is not the same moment for all of them.
			there, soon = nil, time.After(time.Millisecond+time.Duration(r.rng.Int64N(int64(4*time.Millisecond))))
		case sender := <-r.receiver.held:
			if at == inFlight && sender == p.name {
				return nil
			}
		case <-soon:
			return nil
		case <-p.ended:
			return fmt.Errorf("%s: %w: %w", p.name, errEnded, p.err)
		case <-timeout:
			return fmt.Errorf("%s did not come to: %s; its last attempts: %s", p.name, at, r.journal.last(p.name))
		}
	}
}

// drain waits until the retriers have emptied the table.
func (r *run) drain() error {
	ctx, cancel := context.WithTimeout(r.t.Context(), claimTTL+drainTime)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		var rows []hermes.FailedMessage
		if err := r.db.WithContext(ctx).Limit(10).Find(&rows).Error; err != nil {
			return fmt.Errorf("rows are left: %w", err)
		}
		if len(rows) == 0 {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("rows are left, the first: %v, %s, %d claims, last error %q", &rows[0], rows[0].State(), rows[0].Claims,
				rows[0].LastError)
		}
	}
}
