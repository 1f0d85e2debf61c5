package hermes

import (
	"context"
	"slices"
	"sync"
)

// Limits of one statement that inserts many rows.
const (
	longestGroup     = 64
	longestGroupBody = 4 << 20 // bytes of all bodies together, unless one alone is longer
)

// groupCommit has rows that are saved at the same time share one statement, as a database's group commit has
// transactions share one write of its log: while one insert is under way the next collects. There is no timer and no
// goroutine: one of those who wait writes for all, and who comes alone writes at once.
type groupCommit struct {
	store *store

	mu      sync.Mutex
	writing bool // somebody writes, or has been told to
	waiting []*saving
}

// saving is one caller's row on its way.
type saving struct {
	row    *newRow
	lead   chan struct{} // has a value when it is the caller's turn to write
	result chan error    // has a value when another wrote
}

// insert returns when its row is in the table. It is tried within the save timeout, first together with others. What
// fails together is tried again one by one: a row that cannot be written fails no other, and none waits for one that
// takes long. If ctx ends, it returns ctx's error, and others' rows are written all the same.
func (g *groupCommit) insert(ctx context.Context, row *newRow) error {
	work := func(ctx context.Context) error { return g.together(ctx, row) }
	return g.store.insistently(ctx, func(ctx context.Context) error {
		err := work(ctx)
		work = func(ctx context.Context) error { return g.store.insert(ctx, row) }
		return err
	})
}

// together writes row in the next insert.
func (g *groupCommit) together(ctx context.Context, row *newRow) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	own := &saving{row: row, lead: make(chan struct{}, 1), result: make(chan error, 1)}
	g.mu.Lock()
	g.waiting = append(g.waiting, own)
	if !g.writing {
		g.writing = true
		own.lead <- struct{}{}
	}
	g.mu.Unlock()
	select {
	case <-own.lead:
		return g.write(ctx)
	case err := <-own.result:
		return err
	case <-ctx.Done():
		g.withdraw(own)
		return ctx.Err()
	}
}

// write inserts what has collected, the caller's row first, and tells the others how it went.
func (g *groupCommit) write(ctx context.Context) error {
	group := g.take()
	rows := make([]*newRow, len(group))
	for i, s := range group {
		rows[i] = s.row
	}
	// Half the time, so that there is some left for each to try alone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.store.saveTimeout/2)
	defer cancel()
	err := g.store.insert(ctx, rows...)
	for _, s := range group[1:] {
		s.result <- err
	}
	g.next(err)
	return err
}

// take removes the next group from those who wait; its first is the one who leads.
func (g *groupCommit) take() []*saving {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, size := 0, 0
	for n < min(len(g.waiting), longestGroup) {
		size += len(g.waiting[n].row.Body)
		if n > 0 && size > longestGroupBody {
			break
		}
		n++
	}
	group := slices.Clone(g.waiting[:n])
	g.waiting = slices.Delete(g.waiting, 0, n)
	return group
}

// next lets the first who waits lead. After a failure all who wait are sent to try alone: the time for it runs.
func (g *groupCommit) next(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		for _, s := range g.waiting {
			s.result <- err
		}
		g.waiting = nil
	}
	g.hand()
}

// hand passes the writing on, if there is anyone. g.mu is held.
func (g *groupCommit) hand() {
	g.writing = len(g.waiting) > 0
	if g.writing {
		g.waiting[0].lead <- struct{}{}
	}
}

// withdraw takes a row back that nobody has begun to write.
func (g *groupCommit) withdraw(own *saving) {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.waiting, own)
	if i < 0 {
		return
	}
	g.waiting = slices.Delete(g.waiting, i, i+1)
	select {
	case <-own.lead:
		g.hand()
	default:
	}
}
