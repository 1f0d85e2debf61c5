package hermes

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// pass is a run of RetryAll. One goroutine, its caller's, decides everything; what it decides on is its own. Others make
// the attempts, and talk to the database, at most one of them claiming and one recording at a time: what ends meanwhile
// is recorded together next.
type pass struct {
	c       *Client
	ctx     context.Context
	opts    RetryOptions
	start   time.Time
	summary RetrySummary
	err     error // why it ends early; nil: it goes on

	claims   claims
	hosts    hosts
	inFlight int
	unsaved  []*sending // what is to be recorded or given back

	work     chan *sending
	ended    chan *sending
	claimed  chan claimResult
	recorded chan recordResult

	claiming, recording bool
	reported            time.Time
}

// sending is a row's way through a pass.
type sending struct {
	msg    *FailedMessage
	batch  *batch
	claim  *claim
	o      *outgoing
	result *result // nil: it was not sent
	err    error   // it was not sent, and is not to be given back
	later  bool    // given back, to be claimed again by this pass
}

func newPass(ctx context.Context, c *Client, opts RetryOptions) *pass {
	return &pass{
		c:        c,
		ctx:      ctx,
		opts:     opts,
		start:    time.Now(),
		reported: time.Now(),
		claims:   newClaims(c, opts),
		hosts:    newHosts(opts),
		work:     make(chan *sending),
		ended:    make(chan *sending, opts.Concurrency),
		claimed:  make(chan claimResult, 1),
		recorded: make(chan recordResult, 1),
	}
}

// lookInterval is how often a pass looks for claims to renew and for hosts that have become slow.
const lookInterval = 100 * time.Millisecond

func (p *pass) run() error {
	if err := p.claims.begin(p.ctx); err != nil {
		return fmt.Errorf("hermes: beginning a pass: %w", err)
	}
	var workers sync.WaitGroup
	defer workers.Wait()
	defer close(p.work)
	for range p.opts.Concurrency {
		workers.Go(func() {
			for s := range p.work {
				p.c.attemptOnce(p.ctx, s)
				p.ended <- s
			}
		})
	}
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	done, stopped := p.ctx.Done(), p.c.stopped
	for {
		p.claim()
		p.record()
		if p.isOver() {
			return p.err
		}
		p.step(look.C, &done, &stopped)
	}
}

// step waits for the next thing to happen.
func (p *pass) step(look <-chan time.Time, done *<-chan struct{}, stopped *chan struct{}) {
	var next *sending
	var work chan<- *sending
	var wake <-chan time.Time
	if p.canSend() {
		if next = p.hosts.next(time.Now()); next != nil {
			next.claim.until = next.batch.until
			work = p.work
		} else {
			timer, stop := p.hosts.wake()
			defer stop()
			wake = timer
		}
	}
	select {
	case work <- next:
		p.hosts.sent()
		p.inFlight++
	case s := <-p.ended:
		p.attemptEnded(s)
	case r := <-p.claimed:
		p.take(r)
	case r := <-p.recorded:
		p.note(r)
	case <-wake:
	case now := <-look:
		p.claims.renewal = true
		p.slowDown(now)
	case <-*done:
		*done = nil
		p.stop(p.ctx.Err())
	case <-*stopped:
		*stopped = nil
		p.stop(ErrShutdown)
	}
}

// canSend tells whether a worker is free, and what has ended is recorded about as fast as it ends.
func (p *pass) canSend() bool {
	return p.err == nil && p.inFlight < p.opts.Concurrency && len(p.unsaved) <= 4*p.opts.BatchSize
}

// stop ends the pass: nothing more is sent, and what was not is given back.
func (p *pass) stop(why error) {
	p.err = errors.Join(p.err, why)
	p.unsaved = append(p.unsaved, p.hosts.emptyAll()...)
}

func (p *pass) isOver() bool {
	if p.claiming || p.recording || p.inFlight > 0 || len(p.unsaved) > 0 {
		return false
	}
	return p.err != nil || p.hosts.queued == 0 && p.claims.areDone()
}

// attemptEnded notes that a worker is done with a row.
func (p *pass) attemptEnded(s *sending) {
	p.inFlight--
	p.unsaved = append(p.unsaved, s)
	if p.hosts.ended(s) {
		p.unsaved = append(p.unsaved, p.hosts.giveUp(s.msg.Host)...)
		p.claims.giveUp(s.msg.Host)
	}
}

// slowDown gives back what a slow host need not keep: its rows are claimed apart from now on.
func (p *pass) slowDown(now time.Time) {
	for host, rest := range p.hosts.slowDown(now) {
		for _, s := range rest {
			s.later = true
		}
		p.unsaved = append(p.unsaved, rest...)
		p.claims.setApart(host, rest[0].msg)
	}
}

// claim asks for more rows, or for more time, in good time before they are needed.
func (p *pass) claim() {
	if p.claiming || p.err != nil {
		return
	}
	job := p.claims.next(&p.hosts, p.inFlight+len(p.unsaved) == 0 && !p.recording)
	if job == nil {
		return
	}
	p.claiming = true
	// What a claim that is broken off has claimed nobody would know.
	ctx := context.WithoutCancel(p.ctx)
	go func() { p.claimed <- job(ctx) }()
}

// take queues what was claimed.
func (p *pass) take(r claimResult) {
	p.claiming = false
	if r.err != nil {
		p.stop(r.err)
	}
	for _, lost := range r.lost {
		if p.hosts.drop(lost) { // else it is on its way, or settled by now
			p.claims.settled(lost)
			p.c.claimLost(p.ctx, lost.msg.ID)
		}
	}
	for _, s := range p.claims.noted(r) {
		if s.later || p.err != nil || !p.hosts.add(s) {
			p.unsaved = append(p.unsaved, s)
		}
	}
	if r.scan != nil && r.scan.host != "" {
		p.hosts.claimed(r.scan.host)
	}
}

// record writes down what has ended since the last time.
func (p *pass) record() {
	if p.recording || len(p.unsaved) == 0 {
		return
	}
	p.recording = true
	group := p.unsaved
	p.unsaved = nil
	go func() { p.recorded <- p.c.recordGroup(p.ctx, group) }()
}

// note adds what is recorded now to the summary.
func (p *pass) note(r recordResult) {
	p.recording = false
	p.summary.Delivered += r.Delivered
	p.summary.Failed += r.Failed
	p.summary.Invalid += r.Invalid
	p.summary.Released += r.Released
	for _, s := range r.group {
		p.claims.settled(s)
		if s.later && s.msg.Claims <= suspectClaims {
			p.hosts.left(s.msg.Host)
		}
	}
	if r.err != nil {
		p.stop(r.err)
	}
	p.report(false)
}

const reportInterval = 200 * time.Millisecond

// report calls Progress, at times.
func (p *pass) report(last bool) {
	now := time.Now()
	p.summary.Elapsed = now.Sub(p.start)
	if p.opts.Progress == nil || !last && now.Sub(p.reported) < reportInterval {
		return
	}
	p.reported = now
	defer p.c.recoverHook()
	p.opts.Progress(p.summary)
}
