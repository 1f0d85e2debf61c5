//go:build unix

package hermes_test

import (
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

// TestFault25_StoppedPastItsClaim: a process that holds a row is stopped, another takes the row over, the first goes on.
func TestFault25_StoppedPastItsClaim(t *testing.T) {
	for name, status := range map[string]int{"and then fails": 503, "and then succeeds": 200} {
		t.Run(name, func(t *testing.T) {
			eachDSN(t, func(t *testing.T, dsn string) {
				db := testdb.Open(t, dsn)
				c := newClient(t, db)
				arrived, answer := make(chan struct{}), make(chan struct{})
				r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
					close(arrived)
					<-answer
					w.WriteHeader(status)
				})
				id := saved(t, c, to(r.URL)).ID
				p := start(t, "retry one", dsn)
				<-arrived
				require.NoError(t, p.Signal(syscall.SIGSTOP))
				others := takeOver(t, db, id)
				close(answer)
				require.NoError(t, p.Signal(syscall.SIGCONT))
				told := p.wait(t)
				if status == 503 {
					require.Len(t, told.Errors, 1)
					assert.Contains(t, told.Errors[0], hermes.ErrClaimLost.Error())
					assert.Equal(t, lookedAt(others), row(t, c, id), "its failure is dropped")
					return
				}
				assert.Empty(t, told.Errors)
				assert.Zero(t, count(t, c, hermes.Filter{}), "its success counts")
				_, err := c.RetryMessage(t.Context(), others)
				assert.ErrorIs(t, err, hermes.ErrNotFound)
				assert.Zero(t, count(t, c, hermes.Filter{}), "the row stays gone")
			})
		})
	}
}

// TestFault25_StoppedInAPassPastItsClaims: the same of a pass. The rows that it has not sent by then are the other's.
func TestFault25_StoppedInAPassPastItsClaims(t *testing.T) {
	eachDSN(t, func(t *testing.T, dsn string) {
		db := testdb.Open(t, dsn)
		c := newClient(t, db)
		arrived, answer := make(chan struct{}, 100), make(chan struct{})
		r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			arrived <- struct{}{}
			<-answer
			w.WriteHeader(503)
		})
		release := sync.OnceFunc(func() { close(answer) })
		defer release()
		const rows = 40 // more than it sends to a host at once
		multiply(t, db, saved(t, c, to(r.URL)).ID, rows-1)
		p := start(t, "retry all", dsn)
		for range 16 {
			<-arrived
		}
		// When it has claimed all it asks the database for nothing more; stopped before, it may hold SQLite's write lock.
		require.Eventually(t, func() bool {
			return count(t, c, hermes.Filter{States: []hermes.State{hermes.StateClaimed}}) == rows
		}, 20*time.Second, 50*time.Millisecond)
		require.NoError(t, p.Signal(syscall.SIGSTOP))
		exec(t, db, "UPDATE failed_message SET claimed_until = ?", ago(time.Second))
		another := newClient(t, db, hermes.WithInstanceID("another"))
		var others []*hermes.FailedMessage
		require.Eventually(t, func() bool { // a statement of the stopped process may still be at work on some
			others = append(others, gather(t, another, hermes.GatherOptions{})...)
			return len(others) == rows
		}, 20*time.Second, 10*time.Millisecond)
		release()
		require.NoError(t, p.Signal(syscall.SIGCONT))
		told := p.wait(t)
		assert.Empty(t, told.Errors)
		assert.Contains(t, told.IDs[0], "0 0 ", "nothing is recorded")
		for _, m := range others {
			assert.Equal(t, lookedAt(m), row(t, c, m.ID))
		}
	})
}
