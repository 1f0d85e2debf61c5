package hermes_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

func TestAFailedMessageIsSavedRetriedAndGone(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		ctx := context.Background()
		r := newReceiver(t, statuses(503, 503, 503, 503, 503, 503, 200))
		resp, err := c.SendMessage(post(t, r.URL+"/pay?a=b", "hello"))
		require.NoError(t, err)
		assert.Equal(t, 6, resp.Attempts)
		assert.Equal(t, 503, resp.StatusCode)
		assert.NotEmpty(t, resp.FailedMessageID)

		msgs, err := c.GatherFailedMessagesForRetry(ctx, hermes.GatherOptions{})
		require.NoError(t, err)
		require.Len(t, msgs, 1)
		resp, err = c.RetryMessage(ctx, msgs[0])
		require.NoError(t, err)
		assert.True(t, resp.Succeeded())
		assert.Zero(t, count(t, c, hermes.Filter{}))

		seen := r.received()
		require.Len(t, seen, 7)
		for _, req := range seen {
			assert.Equal(t, "hello", req.Body)
			assert.Equal(t, msgs[0].ID, req.Header.Get("Idempotency-Key"))
		}
	})
}
