package hermes_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

// journal writes down what hooks are told.
type journal struct {
	mu    sync.Mutex
	lines []string
	ids   map[string]bool
}

func (j *journal) note(id, format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ids == nil {
		j.ids = map[string]bool{}
	}
	j.ids[id] = true
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) hooks() hermes.Hooks {
	return hermes.Hooks{
		AttemptStart: func(_ context.Context, i hermes.AttemptStartInfo) context.Context {
			j.note(i.MessageID, "start %d %s retry=%v", i.Number, i.Method, i.Retry)
			return nil
		},
		AttemptDone: func(_ context.Context, i hermes.AttemptDoneInfo) {
			j.note(i.MessageID, "done %d %d %s %s", i.Number, i.StatusCode, i.Kind, i.Outcome)
		},
		Delivered: func(_ context.Context, i hermes.DeliveredInfo) {
			j.note(i.MessageID, "delivered %d attempts=%d retry=%v", i.StatusCode, i.Attempts, i.Retry)
		},
		Saved: func(_ context.Context, i hermes.SavedInfo) {
			j.note(i.MessageID, "saved %d %s %s attempts=%d retry=%v", i.StatusCode, i.Kind, i.Outcome, i.Attempts, i.Retry)
		},
	}
}

func TestHooksTellAMessagesStory(t *testing.T) {
	t.Parallel()
	testdb.Each(t, func(t *testing.T, db *gorm.DB) {
		j := &journal{}
		c := newClient(t, db, hermes.WithHooks(j.hooks()), hermes.WithMaxRetryAttempts(1))
		r := newReceiver(t, statuses(503, 503, 503, 200))
		resp, err := c.SendMessage(post(t, r.URL, "x"))
		require.NoError(t, err)
		for range 2 {
			_, err := c.RetryMessage(context.Background(), &hermes.FailedMessage{ID: resp.FailedMessageID})
			require.NoError(t, err)
		}
		assert.Equal(t, []string{
			"start 1 POST retry=false", "done 1 503 status retryable",
			"start 2 POST retry=false", "done 2 503 status retryable",
			"saved 503 status retryable attempts=2 retry=false",
			"start 1 POST retry=true", "done 1 503 status retryable",
			"saved 503 status retryable attempts=1 retry=true",
			"start 1 POST retry=true", "done 1 200  delivered",
			"delivered 200 attempts=1 retry=true",
		}, j.lines)
		assert.Equal(t, map[string]bool{resp.FailedMessageID: true}, j.ids)
	})
}

func TestAttemptStartGivesTheAttemptItsContext(t *testing.T) {
	t.Parallel()
	type key struct{}
	var seen []any
	rt := &script{answer: func(_ int, req *http.Request) (*http.Response, error) {
		seen = append(seen, req.Context().Value(key{}))
		return answerOf(503), nil
	}}
	c := newClient(t, testdb.SQLite(t), hermes.WithHTTPClient(&http.Client{Transport: rt}), hermes.WithMaxRetryAttempts(2),
		hermes.WithHooks(hermes.Hooks{AttemptStart: func(ctx context.Context, i hermes.AttemptStartInfo) context.Context {
			return context.WithValue(ctx, key{}, i.Number)
		}}))
	_, err := c.SendMessage(post(t, "http://receiver.example", "x"))
	require.NoError(t, err)
	assert.Equal(t, []any{1, 2, 3}, seen)
}

func TestFault16_AHookThatPanicsIsLoggedAndChangesNothing(t *testing.T) {
	t.Parallel()
	boom := func() { panic("boom?token=canary http://u:canary@h/?q=canary") }
	hooks := hermes.Hooks{
		AttemptStart: func(context.Context, hermes.AttemptStartInfo) context.Context { boom(); return nil },
		AttemptDone:  func(context.Context, hermes.AttemptDoneInfo) { boom() },
		Delivered:    func(context.Context, hermes.DeliveredInfo) { boom() },
		Saved:        func(context.Context, hermes.SavedInfo) { boom() },
	}
	testdb.Each(t, func(t *testing.T, db *gorm.DB) {
		var logged bytes.Buffer
		c := newClient(t, db, hermes.WithHooks(hooks), hermes.WithMaxRetryAttempts(0),
			hermes.WithLogger(slog.New(slog.NewTextHandler(&logged, nil))))
		r := newReceiver(t, statuses(200, 503, 200))

		resp, err := c.SendMessage(post(t, r.URL, "x"))
		require.NoError(t, err)
		assert.True(t, resp.Succeeded())
		assert.Zero(t, count(t, c, hermes.Filter{}), "after a 2xx nothing makes a row")

		resp, err = c.SendMessage(post(t, r.URL, "x"))
		require.NoError(t, err)
		assert.Equal(t, resp.FailedMessageID, only(t, c).ID)

		resp, err = c.RetryMessage(context.Background(), only(t, c))
		require.NoError(t, err)
		assert.True(t, resp.Succeeded())
		assert.Zero(t, count(t, c, hermes.Filter{}))
		assert.Equal(t, 9, bytes.Count(logged.Bytes(), []byte("a hook panicked")))
	})
}

func TestNotSavedIsReported(t *testing.T) {
	t.Parallel()
	var told []hermes.NotSavedInfo
	c, err := hermes.New(testdb.SQLite(t), hermes.WithMaxRetryAttempts(0), hermes.WithSaveTimeout(50*time.Millisecond),
		hermes.WithHooks(hermes.Hooks{NotSaved: func(_ context.Context, i hermes.NotSavedInfo) { told = append(told, i) }}))
	require.NoError(t, err) // and no Migrate
	r := newReceiver(t, statuses(503))

	_, err = c.SendMessage(post(t, r.URL, "x"))

	var lost *hermes.NotSavedError
	require.ErrorAs(t, err, &lost)
	assert.ErrorContains(t, err, "no such table")
	require.Len(t, told, 1)
	assert.Equal(t, lost.Message.ID, told[0].MessageID)
	assert.Equal(t, 503, told[0].StatusCode)
	assert.Same(t, lost, told[0].Err)
}
