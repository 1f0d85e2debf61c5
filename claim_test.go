package hermes_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

// TestManyGatherAtOnce: several clients with many goroutines, every row is claimed once.
func TestManyGatherAtOnce(t *testing.T) {
	eachDSN(t, func(t *testing.T, dsn string) {
		const rows, clients, goroutines = 400, 4, 5
		first := newClient(t, testdb.Open(t, dsn))
		seed := saved(t, first)
		multiply(t, testdb.Open(t, dsn), seed.ID, rows-1)
		var (
			mu   sync.Mutex
			wg   sync.WaitGroup
			seen = map[string]string{}
		)
		for i := range clients {
			c := newClient(t, testdb.Open(t, dsn), hermes.WithInstanceID(fmt.Sprint("instance ", i)))
			for range goroutines {
				wg.Go(func() {
					for {
						msgs, err := c.GatherFailedMessagesForRetry(context.Background(), hermes.GatherOptions{Limit: 7})
						if !assert.NoError(t, err) || len(msgs) == 0 {
							return
						}
						assert.LessOrEqual(t, len(msgs), 7)
						mu.Lock()
						for _, m := range msgs {
							assert.Empty(t, seen[m.ID], "claimed twice")
							seen[m.ID] = m.ClaimedBy
						}
						mu.Unlock()
					}
				})
			}
		}
		wg.Wait()
		assert.Len(t, seen, rows)
		assert.EqualValues(t, rows, count(t, first, hermes.Filter{States: []hermes.State{hermes.StateClaimed}}))
	})
}

func TestWhatAGatheredMessageSays(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		want := saved(t, c)
		before := time.Now().Add(-10 * time.Millisecond)
		got := gather(t, c, hermes.GatherOptions{})[0]
		assert.NotEmpty(t, got.ClaimToken)
		assert.Equal(t, "green-7", got.ClaimedBy)
		assert.Equal(t, 1, got.Claims)
		assert.WithinRange(t, *got.ClaimedUntil, before.Add(3*time.Minute), time.Now().Add(3*time.Minute+10*time.Millisecond))
		assert.Equal(t, hermes.StateClaimed, got.State())
		assert.Equal(t, lookedAt(got), row(t, c, want.ID))
		want.Claims, want.ClaimToken, want.ClaimedBy, want.ClaimedUntil = got.Claims, got.ClaimToken, got.ClaimedBy, got.ClaimedUntil
		assert.Equal(t, want, got, "a claim changes nothing else")
		assert.Empty(t, gather(t, c, hermes.GatherOptions{}))
	}, hermes.WithClaimTTL(3*time.Minute), hermes.WithInstanceID("green-7"))
}

// lookedAt is a gathered message as the monitor shows it.
func lookedAt(m *hermes.FailedMessage) *hermes.FailedMessage {
	seen := *m
	seen.ClaimToken = ""
	return &seen
}

// TestWhoLooksAtAClaimDoesNotHoldIt: what Get returned proved the claim of whoever had it, so that a message was sent
// twice at once, and purged while it was being sent.
func TestWhoLooksAtAClaimDoesNotHoldIt(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		ctx := context.Background()
		r := newReceiver(t, statuses(200))
		id := saved(t, c, to(r.URL)).ID
		held := gather(t, c, hermes.GatherOptions{})[0]
		page, err := c.Monitor().List(ctx, hermes.Filter{}, hermes.ListOptions{})
		require.NoError(t, err)
		var found hermes.FailedMessage
		require.NoError(t, db.First(&found, "id = ?", id).Error)

		for name, m := range map[string]*hermes.FailedMessage{"Get": row(t, c, id), "List": page.Messages[0], "GORM": &found} {
			require.Equal(t, hermes.StateClaimed, m.State(), name)
			_, err := c.RetryMessage(ctx, m)
			assert.ErrorIs(t, err, hermes.ErrClaimed, name)
			assert.ErrorIs(t, c.PurgeMessage(ctx, m), hermes.ErrClaimed, name)
			require.NoError(t, c.Release(ctx, m))
			assert.Equal(t, hermes.StateClaimed, row(t, c, id).State(), name)
		}
		assert.Empty(t, r.received())
		_, err = c.RetryMessage(ctx, held)
		require.NoError(t, err)
		assert.Len(t, r.received(), 1)
	})
}

func TestGatherTakesWhatIsDueLongestAndNoMoreThanItsLimit(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		var want []string
		for _, minutes := range []int{10, 5, 7, 1, 9} {
			saved(t, c, dueSince(time.Duration(minutes)*time.Minute), func(m *hermes.FailedMessage) {
				m.ID = fmt.Sprintf("due-%02d", minutes)
			})
		}
		same := ago(time.Hour)
		for _, id := range []string{"same-b", "same-c", "same-a"} {
			saved(t, c, func(m *hermes.FailedMessage) { m.ID, m.NextAttemptAt = id, &same })
		}
		saved(t, c, dueSince(-time.Hour))
		saved(t, c, func(m *hermes.FailedMessage) { m.Retryable, m.NextAttemptAt = false, nil })
		saved(t, c, func(m *hermes.FailedMessage) { m.NextAttemptAt = nil })
		saved(t, c, func(m *hermes.FailedMessage) { m.Sender = "another" })
		want = []string{"same-a", "same-b", "same-c", "due-10", "due-09", "due-07", "due-05", "due-01"}
		assert.Equal(t, want[:2], idsOf(gather(t, c, hermes.GatherOptions{Limit: 2})))
		assert.Equal(t, want[2:7], idsOf(gather(t, c, hermes.GatherOptions{Limit: 5})))
		assert.Equal(t, want[7:], idsOf(gather(t, c, hermes.GatherOptions{Limit: -1})))

		seed := saved(t, c)
		multiply(t, db, seed.ID, 150)
		assert.Len(t, gather(t, c, hermes.GatherOptions{}), 100)
		assert.Len(t, gather(t, c, hermes.GatherOptions{Limit: 1000}), 51)
	})
}

func TestGatherWithAFilter(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		mine := saved(t, c, func(m *hermes.FailedMessage) { m.Metadata = map[string]string{"tenant": "a"} })
		saved(t, c, func(m *hermes.FailedMessage) { m.Metadata = map[string]string{"tenant": "b"} })
		saved(t, c)
		f := hermes.Filter{Metadata: map[string]string{"tenant": "a"}}
		assert.Equal(t, []string{mine.ID}, idsOf(gather(t, c, hermes.GatherOptions{Filter: f})))
		assert.Empty(t, gather(t, c, hermes.GatherOptions{Filter: f}))
		assert.Empty(t, gather(t, c, hermes.GatherOptions{Filter: hermes.Filter{IDs: []string{}}}))
		assert.Len(t, gather(t, c, hermes.GatherOptions{Filter: hermes.ValidMessages()}), 2)
	})
}

func TestSendersDoNotGatherEachOthersRows(t *testing.T) {
	each(t, func(t *testing.T, billing *hermes.Client, db *gorm.DB) {
		nobody := newClient(t, db)
		r := newReceiver(t, statuses(500))
		resp, err := billing.SendMessage(post(t, r.URL, "x"))
		require.NoError(t, err)
		assert.Empty(t, gather(t, nobody, hermes.GatherOptions{}))
		msgs := gather(t, billing, hermes.GatherOptions{})
		require.Len(t, msgs, 1)
		assert.Equal(t, resp.FailedMessageID, msgs[0].ID)

		// Asked for by name, a row is sent by whoever is asked.
		require.NoError(t, billing.Release(context.Background(), msgs...))
		_, err = nobody.RetryMessage(context.Background(), msgs[0])
		require.NoError(t, err)
		assert.Equal(t, "billing", row(t, nobody, resp.FailedMessageID).Sender)
	}, hermes.WithSender("billing"), hermes.WithMaxRetryAttempts(0))
}

func TestAnExpiredClaimIsTakenOver(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		saved(t, c)
		first := gather(t, c, hermes.GatherOptions{})[0]
		expire(t, db, first.ID)
		second := gather(t, c, hermes.GatherOptions{})
		require.Len(t, second, 1)
		assert.NotEqual(t, first.ClaimToken, second[0].ClaimToken)
		assert.Equal(t, 2, second[0].Claims)

		_, err := c.RetryMessage(context.Background(), first)
		assert.ErrorIs(t, err, hermes.ErrClaimed)
	})
}

// TestAClaimThatRanOutButWasNotTakenOver is still its holder's.
func TestAClaimThatRanOutButWasNotTakenOver(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		m := saved(t, c, to(newReceiver(t, statuses(200)).URL))
		held := gather(t, c, hermes.GatherOptions{})[0]
		expire(t, db, m.ID)
		resp, err := c.RetryMessage(context.Background(), held)
		require.NoError(t, err)
		assert.True(t, resp.Succeeded())
	})
}

// TestClaimsGoByTheDatabasesClock: neither the session's time zone nor the zone of the DSN has any effect.
func TestClaimsGoByTheDatabasesClock(t *testing.T) {
	eachDSN(t, func(t *testing.T, dsn string) {
		here := newClient(t, testdb.Open(t, dsn))
		zone := "_loc=Pacific%2FKiritimati"
		if !strings.HasPrefix(dsn, "file:") {
			zone = "TimeZone=Pacific/Kiritimati"
		}
		there := newClient(t, testdb.Open(t, withParam(dsn, zone)))
		due := saved(t, there, dueSince(time.Second))
		saved(t, there, dueSince(-time.Minute))
		assert.Equal(t, time.UTC, row(t, there, due.ID).CreatedAt.Location())
		assert.Equal(t, row(t, here, due.ID), row(t, there, due.ID))

		held := gather(t, here, hermes.GatherOptions{})
		assert.Equal(t, []string{due.ID}, idsOf(held))
		assert.Empty(t, gather(t, there, hermes.GatherOptions{}))
		require.NoError(t, here.Release(context.Background(), held...))
		assert.Equal(t, []string{due.ID}, idsOf(gather(t, there, hermes.GatherOptions{})))
		assert.Empty(t, gather(t, here, hermes.GatherOptions{}))
	})
}

func TestRelease(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		ctx := context.Background()
		for range 3 {
			saved(t, c)
		}
		msgs := gather(t, c, hermes.GatherOptions{Limit: 2})
		third := gather(t, c, hermes.GatherOptions{})[0]
		expire(t, db, third.ID)
		stale := *third
		third = gather(t, c, hermes.GatherOptions{})[0]

		require.NoError(t, c.Release(ctx, msgs[0], nil, &hermes.FailedMessage{}, &stale, msgs[1], sample()))
		for _, m := range msgs {
			free := row(t, c, m.ID)
			assert.Equal(t, hermes.StateDue, free.State())
			assert.Empty(t, free.ClaimToken+free.ClaimedBy)
			assert.Zero(t, free.Claims, "a claim given back unsent says nothing of the row")
		}
		assert.Equal(t, lookedAt(third), row(t, c, third.ID), "another's claim is left alone")
		assert.Len(t, gather(t, c, hermes.GatherOptions{}), 2)
		require.NoError(t, c.Release(ctx))
		require.NoError(t, c.Release(ctx, msgs...), "these claims have ended")
		assert.Empty(t, gather(t, c, hermes.GatherOptions{}))
	})
}

func TestOfManyRetriesWithOneArgumentOneSends(t *testing.T) {
	for name, claimed := range map[string]bool{"gathered": true, "unclaimed": false} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
				const calls = 8
				refused := make(chan struct{}, calls)
				r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
					tooLong := time.After(10 * time.Second)
					for range calls - 1 { // it is being sent while all others ask for it
						select {
						case <-refused:
						case <-tooLong:
							return
						}
					}
				})
				m := saved(t, c, to(r.URL))
				if claimed {
					m = gather(t, c, hermes.GatherOptions{})[0]
				}
				before := *m
				var wg sync.WaitGroup
				for range calls {
					wg.Go(func() {
						resp, err := c.RetryMessage(context.Background(), m)
						if err == nil {
							assert.True(t, resp.Succeeded())
							return
						}
						assert.ErrorIs(t, err, hermes.ErrClaimed)
						assert.Nil(t, resp)
						refused <- struct{}{}
					})
				}
				wg.Wait()
				assert.Len(t, r.received(), 1)
				assert.Equal(t, before, *m, "the argument is not modified")
				assert.Zero(t, count(t, c, hermes.Filter{}))
			})
		})
	}
}

func TestRetryMessageOfWhatCannotBeRetried(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		ctx := context.Background()
		r := newReceiver(t, statuses(200))
		for name, edit := range map[string]func(*hermes.FailedMessage){
			"invalid":          func(m *hermes.FailedMessage) { m.Retryable, m.NextAttemptAt = false, nil },
			"schedule used up": func(m *hermes.FailedMessage) { m.NextAttemptAt = nil },
			"NotAfter passed":  func(m *hermes.FailedMessage) { m.NotAfter = ptr(ago(time.Minute)) },
		} {
			m := saved(t, c, to(r.URL), edit)
			state := m.State()
			for range 2 {
				resp, err := c.RetryMessage(ctx, m)
				assert.ErrorIs(t, err, hermes.ErrNotRetryable, name)
				assert.ErrorContains(t, err, string(state))
				assert.Nil(t, resp)
				assert.Equal(t, state, row(t, c, m.ID).State(), name)
				assert.Empty(t, row(t, c, m.ID).ClaimToken)
			}
		}
		for _, id := range []string{"", "none", "\x00", "\xff", "' OR 1=1"} {
			_, err := c.RetryMessage(ctx, &hermes.FailedMessage{ID: id})
			assert.ErrorIs(t, err, hermes.ErrNotFound, "%q", id)
			assert.ErrorIs(t, c.PurgeMessage(ctx, &hermes.FailedMessage{ID: id}), hermes.ErrNotFound, "%q", id)
			_, err = c.Monitor().Get(ctx, id)
			assert.ErrorIs(t, err, hermes.ErrNotFound, "%q", id)
		}
		_, err := c.RetryMessage(ctx, &hermes.FailedMessage{ID: saved(t, c, to(r.URL)).ID, ClaimToken: "\x00\xff"})
		assert.NoError(t, err, "nobody holds it")
		_, err = c.RetryMessage(ctx, nil)
		assert.ErrorIs(t, err, hermes.ErrInvalidMessage)
		assert.ErrorIs(t, c.PurgeMessage(ctx, nil), hermes.ErrInvalidMessage)
		assert.Len(t, r.received(), 1)
	})
}

func TestRetryMessageSendsWhatIsInTheRow(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		r := newReceiver(t, statuses(200))
		m := saved(t, c, to(r.URL+"/row"), dueSince(-time.Hour)) // not due: it is sent because somebody asks
		lie := *m
		lie.URL, lie.Body, lie.Method = r.URL+"/argument", []byte("argument"), http.MethodDelete
		lie.Header, lie.Retryable, lie.NextAttemptAt = http.Header{"X": {"argument"}}, false, nil
		set(t, db, m.ID, "body", []byte("changed meanwhile"))
		_, err := c.RetryMessage(context.Background(), &lie)
		require.NoError(t, err)
		seen := r.received()
		require.Len(t, seen, 1)
		assert.Equal(t, "/row", seen[0].URL)
		assert.Equal(t, http.MethodPost, seen[0].Method)
		assert.Equal(t, "changed meanwhile", seen[0].Body)
		assert.Empty(t, seen[0].Header.Get("X"))
		assert.Equal(t, "argument", string(lie.Body))
	})
}
