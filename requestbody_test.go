package hermes_test

import (
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

// oneShot is a body of unknown length that can be read once.
func oneShot(body string) io.ReadCloser {
	return io.NopCloser(iotest.OneByteReader(strings.NewReader(body)))
}

func TestFault12_EveryAttemptSendsTheSameBytes(t *testing.T) {
	body := strings.Repeat("\x00\xff\r\n", 10_000)
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		for name, newBody := range map[string]func(req *http.Request){
			"one-shot, length unknown": func(req *http.Request) { req.Body, req.ContentLength, req.GetBody = oneShot(body), -1, nil },
			"one-shot, length 0":       func(req *http.Request) { req.Body, req.ContentLength, req.GetBody = oneShot(body), 0, nil },
			"one-shot, length known":   func(req *http.Request) { req.Body, req.GetBody = oneShot(body), nil },
			"rewindable":               func(*http.Request) {},
			"GetBody that lies": func(req *http.Request) {
				req.GetBody = func() (io.ReadCloser, error) { return oneShot("something else"), nil }
			},
		} {
			r := newReceiver(t, statuses(503, 503, 200))
			req := post(t, r.URL, body)
			newBody(req)
			resp, err := c.SendMessage(req)
			require.NoError(t, err, name)
			require.NotEmpty(t, resp.FailedMessageID, name)
			resp, err = c.RetryMessage(t.Context(), &hermes.FailedMessage{ID: resp.FailedMessageID})
			require.NoError(t, err, name)
			assert.True(t, resp.Succeeded(), name)
			seen := r.received()
			require.Len(t, seen, 3, name)
			for _, one := range seen {
				assert.True(t, one.Body == body, name)
			}
		}
	}, hermes.WithMaxRetryAttempts(1))
}

func TestFault12_BodiesThatAreRefused(t *testing.T) {
	t.Parallel()
	text := func(body string) func() io.Reader { return func() io.Reader { return strings.NewReader(body) } }
	broken := func() io.Reader { return io.MultiReader(strings.NewReader("12"), iotest.ErrReader(errBody)) }
	for _, test := range []struct {
		name   string
		body   func() io.Reader
		length int64
		err    error
	}{
		{"longer than the limit", text("12345678901"), 11, hermes.ErrBodyTooLarge},
		{"longer than the limit, length unknown", text("12345678901"), -1, hermes.ErrBodyTooLarge},
		{"endless", func() io.Reader { return endless{} }, -1, hermes.ErrBodyTooLarge},
		{"says it is longer than the limit", text("1"), math.MaxInt64, hermes.ErrBodyTooLarge},
		{"shorter than it says", text("123"), 4, hermes.ErrInvalidMessage},
		{"empty, but says it is not", text(""), 4, hermes.ErrInvalidMessage},
		{"longer than it says", text("12345"), 4, hermes.ErrInvalidMessage},
		{"breaks off", broken, 4, errBody},
		{"breaks off, length unknown", broken, -1, errBody},
	} {
		for name, send := range refusals {
			t.Run(test.name+", "+name, func(t *testing.T) {
				t.Parallel()
				c := onSQLite(t, hermes.WithMaxBodyBytes(10))
				r := newReceiver(t, statuses(503))
				req := post(t, r.URL, "")
				body := &watchedBody{Reader: test.body()}
				req.Body, req.ContentLength = body, test.length
				err := send(c, req)
				require.ErrorIs(t, err, test.err)
				assert.True(t, errors.Is(err, hermes.ErrBodyTooLarge) || errors.Is(err, hermes.ErrInvalidMessage))
				assert.Equal(t, 1, body.closed)
				assert.Empty(t, r.received())
				assert.Zero(t, count(t, c, hermes.Filter{}))
			})
		}
	}
}

func TestFault12_ABodyAsLongAsTheLimit(t *testing.T) {
	t.Parallel()
	for _, limit := range []int64{10, math.MaxInt64} {
		c := onSQLite(t, hermes.WithMaxBodyBytes(limit))
		r := newReceiver(t, statuses(200))
		for _, length := range []int64{-1, 10} {
			req := post(t, r.URL, "1234567890")
			req.ContentLength = length
			resp, err := c.SendMessage(req)
			require.NoError(t, err)
			assert.True(t, resp.Succeeded())
		}
		for _, seen := range r.received() {
			assert.Equal(t, "1234567890", seen.Body)
		}
	}
}

var errBody = errors.New("body breaks off")

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// watchedBody counts how often it is closed.
type watchedBody struct {
	io.Reader
	closed int
}

func (b *watchedBody) Close() error {
	b.closed++
	return nil
}
