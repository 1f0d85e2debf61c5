package hermes_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

// listed reads all pages of a list, and passes every cursor on as text.
func listed(t testing.TB, c *hermes.Client, f hermes.Filter, o hermes.ListOptions) []string {
	t.Helper()
	var ids []string
	for pages := 0; ; pages++ {
		require.Less(t, pages, 1000)
		page, err := c.Monitor().List(context.Background(), f, o)
		require.NoError(t, err)
		ids = append(ids, idsOf(page.Messages)...)
		if page.Next.IsZero() {
			return ids
		}
		assert.Len(t, page.Messages, o.Limit)
		again, err := hermes.ParseCursor(page.Next.String())
		require.NoError(t, err)
		require.Equal(t, page.Next, again)
		o = hermes.ListOptions{Limit: o.Limit, After: again} // the cursor carries its order
	}
}

// at sets the times of a sample: minutes after a day began.
func at(id string, created, updated int, next *int) func(*hermes.FailedMessage) {
	day := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	return func(m *hermes.FailedMessage) {
		m.ID = id
		m.CreatedAt = day.Add(time.Duration(created) * time.Minute)
		m.UpdatedAt = day.Add(time.Duration(updated) * time.Minute)
		m.NextAttemptAt = nil
		if next != nil {
			m.NextAttemptAt = ptr(day.Add(time.Duration(*next) * time.Minute))
		}
	}
}

func TestListsOrders(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		saved(t, c, at("a", 1, 9, nil))
		saved(t, c, at("b", 2, 5, ptr(30)))
		saved(t, c, at("c", 3, 7, ptr(20)))
		saved(t, c, at("d", 3, 5, ptr(20)))
		saved(t, c, at("e", 3, 6, nil))
		saved(t, c, at("B", 3, 5, ptr(20)))
		for order, want := range map[hermes.Order]string{
			"":                        "a b B c d e",
			hermes.OrderByCreated:     "a b B c d e",
			hermes.OrderByUpdated:     "B b d e c a",
			hermes.OrderByNextAttempt: "B c d b a e",
		} {
			up := strings.Fields(want)
			down := slices.Clone(up)
			slices.Reverse(down)
			for limit := 1; limit <= 7; limit++ {
				o := hermes.ListOptions{OrderBy: order, Limit: limit}
				assert.Equal(t, down, listed(t, c, hermes.Filter{}, o), "%s, %d", order, limit)
				o.Ascending = true
				assert.Equal(t, up, listed(t, c, hermes.Filter{}, o), "%s, %d", order, limit)
			}
		}
		assert.Equal(t, []string{"B", "d", "c"}, listed(t, c, hermes.Filter{IDs: []string{"B", "c", "d"}}, hermes.ListOptions{
			OrderBy: hermes.OrderByUpdated, Ascending: true, Limit: 2}))
	})
}

func TestListsLimits(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		page, err := c.Monitor().List(context.Background(), hermes.Filter{}, hermes.ListOptions{})
		require.NoError(t, err)
		assert.Empty(t, page.Messages)
		assert.True(t, page.Next.IsZero())

		multiply(t, db, saved(t, c).ID, 1100)
		for limit, want := range map[int]int{0: 50, -1: 50, 1: 1, 1000: 1000, 1001: 1000, 1 << 40: 1000} {
			page, err := c.Monitor().List(context.Background(), hermes.Filter{}, hermes.ListOptions{Limit: limit})
			require.NoError(t, err)
			assert.Len(t, page.Messages, want)
			assert.False(t, page.Next.IsZero())
		}
		var all []string
		for m, err := range c.Monitor().All(context.Background(), hermes.Filter{}) {
			require.NoError(t, err)
			all = append(all, m.ID)
		}
		assert.Len(t, all, 1101)
		slices.Sort(all)
		assert.Len(t, slices.Compact(all), 1101)
		assert.EqualValues(t, 1101, count(t, c, hermes.Filter{}))
	})
}

func TestCursors(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		saved(t, c)
		saved(t, c)
		page, err := c.Monitor().List(context.Background(), hermes.Filter{}, hermes.ListOptions{Limit: 1})
		require.NoError(t, err)
		text := page.Next.String()
		assert.Regexp(t, "^[A-Za-z0-9_-]+$", text, "it may stand in a URL")
		for _, bad := range []string{" ", "x", "AAAA", text + "A", text[1:], strings.ToUpper(text), text + "=", "null"} {
			_, err := hermes.ParseCursor(bad)
			assert.ErrorIs(t, err, hermes.ErrInvalidCursor, bad)
			var cursor hermes.Cursor
			assert.ErrorIs(t, cursor.UnmarshalText([]byte(bad)), hermes.ErrInvalidCursor)
		}
		zero, err := hermes.ParseCursor("")
		require.NoError(t, err)
		assert.True(t, zero.IsZero())
		assert.Empty(t, zero.String())

		data, err := json.Marshal(map[string]hermes.Cursor{"next": page.Next})
		require.NoError(t, err)
		var back map[string]hermes.Cursor
		require.NoError(t, json.Unmarshal(data, &back))
		assert.Equal(t, page.Next, back["next"])

		for _, order := range []hermes.Order{"id", "CREATED_AT", "created_at; DROP TABLE failed_message", "body"} {
			_, err := c.Monitor().List(context.Background(), hermes.Filter{}, hermes.ListOptions{OrderBy: order})
			assert.ErrorIs(t, err, hermes.ErrInvalidOption, order)
		}
	})
}

// TestPagesWhileRowsComeAndGo: no row is there twice, none is skipped that stayed.
func TestPagesWhileRowsComeAndGo(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		ctx := context.Background()
		for _, o := range []hermes.ListOptions{
			{Limit: 3}, {Limit: 3, Ascending: true}, {Limit: 3, OrderBy: hermes.OrderByNextAttempt},
			{Limit: 3, OrderBy: hermes.OrderByUpdated, Ascending: true},
		} {
			random := rand.New(rand.NewPCG(1, uint64(len(o.OrderBy))))
			minute := func() *int { return ptr(random.IntN(20)) } // many at the same time
			stays := map[string]int{}
			var leaving []string
			put := func(id string) {
				next := minute()
				if *next < 5 {
					next = nil
				}
				saved(t, c, at(id, *minute(), *minute(), next))
			}
			for i := range 30 {
				id := fmt.Sprintf("%02d", i)
				put(id)
				if i%3 == 0 {
					leaving = append(leaving, id)
				} else {
					stays[id] = 0
				}
			}
			seen := map[string]int{}
			for i := 0; ; i++ {
				page, err := c.Monitor().List(ctx, hermes.Filter{}, o)
				require.NoError(t, err)
				for _, id := range idsOf(page.Messages) {
					seen[id]++
				}
				if page.Next.IsZero() {
					break
				}
				put(fmt.Sprintf("new-%02d", i))
				if len(leaving) > 0 {
					require.NoError(t, c.PurgeMessage(ctx, &hermes.FailedMessage{ID: leaving[0]}))
					leaving = leaving[1:]
				}
				// The row that the cursor stands on may go too.
				last := page.Messages[len(page.Messages)-1].ID
				if _, ok := stays[last]; ok && i%2 == 0 {
					require.NoError(t, c.PurgeMessage(ctx, &hermes.FailedMessage{ID: last}))
				}
				o.After = page.Next
			}
			for id := range stays {
				assert.Equal(t, 1, seen[id], id)
			}
			for id, times := range seen {
				assert.Equal(t, 1, times, id)
			}
			for m, err := range c.Monitor().All(ctx, hermes.Filter{}) {
				require.NoError(t, err)
				require.NoError(t, c.PurgeMessage(ctx, m)) // also while they are read
			}
			assert.Zero(t, count(t, c, hermes.Filter{}))
		}
	})
}

func TestAllEndsWhenItsReaderDoesAndWithAnError(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		saved(t, c)
		saved(t, c)
		read := 0
		for _, err := range c.Monitor().All(context.Background(), hermes.Filter{}) {
			require.NoError(t, err)
			read++
			break
		}
		assert.Equal(t, 1, read)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		for m, err := range c.Monitor().All(ctx, hermes.Filter{}) {
			assert.Nil(t, m)
			assert.ErrorIs(t, err, context.Canceled)
			read++
		}
		assert.Equal(t, 2, read)

		exec(t, db, "ALTER TABLE failed_message RENAME TO away")
		_, err := c.Monitor().Count(context.Background(), hermes.Filter{})
		assert.Error(t, err)
		_, err = c.Monitor().Get(context.Background(), "x")
		assert.Error(t, err)
		assert.False(t, errors.Is(err, hermes.ErrNotFound))
	})
}

func TestAMonitorWithoutAClient(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		want := saved(t, c)
		m, err := hermes.NewMonitor(db)
		require.NoError(t, err)
		got, err := m.Get(context.Background(), want.ID)
		require.NoError(t, err)
		assert.Equal(t, want, got)
		_, err = m.Get(context.Background(), "none")
		assert.ErrorIs(t, err, hermes.ErrNotFound)
		_, err = hermes.NewMonitor(nil)
		assert.ErrorIs(t, err, hermes.ErrInvalidOption)
	})
}
