package hermes_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

func TestPurgeDeletesWhatMatches(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		ctx := context.Background()
		first := saved(t, c)
		multiply(t, db, first.ID, 1203) // more than two batches
		other := saved(t, c, func(m *hermes.FailedMessage) { m.StatusCode = 404 })
		n, err := c.Purge(ctx, hermes.StatusBetween(500, 599))
		require.NoError(t, err)
		assert.EqualValues(t, 1204, n)
		assert.Equal(t, other.ID, only(t, c).ID)
	})
}

func TestPurgeLeavesClaimedRows(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		ctx := context.Background()
		saved(t, c)
		held := gather(t, c, hermes.GatherOptions{})
		saved(t, c)
		n, err := c.Purge(ctx, hermes.Everything())
		require.NoError(t, err)
		assert.EqualValues(t, 1, n)
		assert.Equal(t, held[0].ID, only(t, c).ID)
	})
}

func TestPurgeNeedsACondition(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		saved(t, c)
		_, err := c.Purge(context.Background(), hermes.Filter{})
		assert.ErrorIs(t, err, hermes.ErrUnboundedFilter)
		assert.EqualValues(t, 1, count(t, c, hermes.Filter{}))
	})
}

func TestPurgeByAgeAndState(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		old := saved(t, c, func(m *hermes.FailedMessage) { m.NextAttemptAt = nil })
		set(t, db, old.ID, "created_at", ago(40*24*time.Hour))
		recent := saved(t, c, func(m *hermes.FailedMessage) { m.NextAttemptAt = nil })
		stillDue := saved(t, c)
		set(t, db, stillDue.ID, "created_at", ago(40*24*time.Hour))
		retention := hermes.OlderThan(30 * 24 * time.Hour)
		retention.States = []hermes.State{hermes.StateExhausted}
		n, err := c.Purge(context.Background(), retention)
		require.NoError(t, err)
		assert.EqualValues(t, 1, n)
		row(t, c, recent.ID)
		row(t, c, stillDue.ID)
	})
}

func TestPurgeThatIsCanceledSaysHowFarItCame(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		saved(t, c)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		n, err := c.Purge(ctx, hermes.Everything())
		assert.ErrorIs(t, err, context.Canceled)
		assert.Zero(t, n)
	})
}
