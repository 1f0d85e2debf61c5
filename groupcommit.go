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
	if g.enter(own) {
		return g.write(ctx, own)
	}
	select {
	case <-own.lead:
		return g.write(ctx, own)
	case err := <-own.result:
		return err
	case <-ctx.Done():
		g.withdraw(own)
		return ctx.Err()
	}
}

// enter tells whether own may write at once; else it waits.
func (g *groupCommit) enter(own *saving) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.writing {
		g.writing = true
		return true
	}
	g.waiting = append(g.waiting, own)
	return false
}

// write inserts own's row and what has collected, and tells the others how it went.
func (g *groupCommit) write(ctx context.Context, own *saving) error {
	others := g.take(len(own.row.Body))
	rows := []*newRow{own.row}
	for _, s := range others {
		rows = append(rows, s.row)
	}
	// Half the time, so that there is some left for each to try alone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.store.saveTimeout/2)
	defer cancel()
	err := g.store.insert(ctx, rows...)
	for _, s := range others {
		s.result <- err
	}
	g.leave(err)
	return err
}

// take removes the next group from those who wait; the row of the one who leads has that many bytes.
func (g *groupCommit) take(size int) []*saving {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for ; n < min(len(g.waiting), longestGroup-1); n++ {
		if size += len(g.waiting[n].row.Body); size > longestGroupBody {
			break
		}
	}
	group := slices.Clone(g.waiting[:n])
	g.waiting = slices.Delete(g.waiting, 0, n)
	return group
}

// leave ends an insert. After a failure all who wait are sent to try alone: the time for it runs.
func (g *groupCommit) leave(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		for _, s := range g.waiting {
			s.result <- err
		}
		g.waiting = nil
	}
	g.next()
}

// next lets the first who waits lead. g.mu is held.
func (g *groupCommit) next() {
	if len(g.waiting) == 0 {
		g.writing = false
		return
	}
	g.waiting[0].lead <- struct{}{}
	g.waiting = slices.Delete(g.waiting, 0, 1)
}

// withdraw takes a row back that nobody has begun to write.
func (g *groupCommit) withdraw(own *saving) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.waiting, own); i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
		return
	}
	select {
	case <-own.lead:
		g.next()
	default: // another writes it
	}
}
