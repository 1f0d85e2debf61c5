package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

func TestOrdersAndTheirMessagesAreCommittedTogether(t *testing.T) {
	for name, newDSN := range map[string]func(testing.TB) string{"sqlite": testdb.SQLiteDSN, "postgres": testdb.PostgresDSN} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := newDSN(t)
			warehouse := startWarehouse(t)

			warehouse.set(http.StatusServiceUnavailable)
			require.NoError(t, run(t.Context(), dsn, warehouse.URL, []string{"book", "lamp"}))

			db := testdb.Open(t, dsn)
			var orders []order
			require.NoError(t, db.Find(&orders).Error)
			require.Len(t, orders, 1, "the lamp's is rolled back")
			var msgs []hermes.FailedMessage
			require.NoError(t, db.Find(&msgs).Error)
			require.Len(t, msgs, 1, "the lamp's is rolled back too")
			assert.Equal(t, fmt.Sprintf("order-%d", orders[0].ID), msgs[0].IdempotencyKey)
			assert.Equal(t, http.StatusServiceUnavailable, msgs[0].StatusCode)

			warehouse.set(http.StatusOK)
			client, err := hermes.New(db)
			require.NoError(t, err)
			_, err = client.Reschedule(t.Context(), hermes.Everything(), msgs[0].CreatedAt) // rather than wait a minute
			require.NoError(t, err)
			require.NoError(t, run(t.Context(), dsn, warehouse.URL, []string{"book"}))

			left, err := client.Monitor().Count(t.Context(), hermes.Filter{})
			require.NoError(t, err)
			assert.Zero(t, left)
			require.NoError(t, db.Order("id").Find(&orders).Error)
			require.Len(t, orders, 2)
			told := func(status int, o order) string {
				return fmt.Sprintf(`%d order-%d {"id":%d,"product":"book"}`, status, o.ID, o.ID)
			}
			assert.ElementsMatch(t, []string{told(503, orders[0]), told(200, orders[0]), told(200, orders[1])}, warehouse.requests)
		})
	}
}

type warehouse struct {
	*httptest.Server
	mu       sync.Mutex
	status   int
	requests []string
}

func startWarehouse(t *testing.T) *warehouse {
	wh := &warehouse{}
	wh.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		assert.NoError(t, err)
		wh.mu.Lock()
		defer wh.mu.Unlock()
		wh.requests = append(wh.requests, fmt.Sprintf("%d %s %s", wh.status, req.Header.Get("Idempotency-Key"), body))
		w.WriteHeader(wh.status)
	}))
	t.Cleanup(wh.Close)
	return wh
}

func (wh *warehouse) set(status int) {
	wh.mu.Lock()
	defer wh.mu.Unlock()
	wh.status = status
}
