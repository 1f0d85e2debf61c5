package hermes_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

// TestPostgreSQLsSimpleProtocol: behind some poolers statements cannot be prepared, and arguments come without types.
func TestPostgreSQLsSimpleProtocol(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	db, err := gorm.Open(postgres.New(postgres.Config{DSN: testdb.PostgresDSN(t), PreferSimpleProtocol: true}),
		&gorm.Config{Logger: logger.Discard})
	require.NoError(t, err)
	pool, err := db.DB()
	require.NoError(t, err)
	t.Cleanup(func() { pool.Close() })
	c := newClient(t, db, hermes.WithMaxRetryAttempts(1))
	require.NoError(t, c.Ready(ctx))
	r := newReceiver(t, statuses(503, 503, 503, 200))
	_, err = c.SendMessage(post(t, r.URL+"/a?b=c", "\x00\xff'\\"), hermes.Metadata(map[string]string{"a'b": `c\"d`}),
		hermes.Schedule(0, time.Hour), hermes.NotAfter(time.Now().Add(time.Hour*24)))
	require.NoError(t, err)

	filter := hermes.Filter{Metadata: map[string]string{"a'b": `c\"d`}, URLLike: "%/a?b=_", MinAge: 1, Method: "post",
		States: []hermes.State{hermes.StateDue}, StatusCodes: []int{503}, CreatedAfter: time.Now().Add(-time.Hour)}
	assert.EqualValues(t, 1, count(t, c, filter))
	msgs, err := c.GatherFailedMessagesForRetry(ctx, hermes.GatherOptions{Filter: filter})
	require.NoError(t, err)
	require.Len(t, msgs, 1)
	resp, err := c.RetryMessage(ctx, msgs[0])
	require.NoError(t, err)
	assert.True(t, resp.Failed())
	assert.Equal(t, hermes.StateWaiting, only(t, c).State())
	n, err := c.Reschedule(ctx, hermes.Everything(), time.Time{})
	require.NoError(t, err)
	assert.EqualValues(t, 1, n)
	resp, err = c.RetryMessage(ctx, only(t, c))
	require.NoError(t, err)
	assert.True(t, resp.Succeeded())
	for _, seen := range r.received() {
		assert.Equal(t, "\x00\xff'\\", seen.Body)
	}
}
