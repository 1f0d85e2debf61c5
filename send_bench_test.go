package hermes_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hermeshttp/hermes"
	"github.com/hermeshttp/hermes/internal/testdb"
)

// stub answers every request with 200 and two bytes, having read its body.
type stub struct{}

func (stub) RoundTrip(req *http.Request) (*http.Response, error) {
	io.Copy(io.Discard, req.Body)
	req.Body.Close()
	return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/plain"}}, ContentLength: 2,
		Body: io.NopCloser(bytes.NewReader([]byte("ok"))), Request: req}, nil
}

// BenchmarkSuccess is what a message costs that is delivered at once: a POST of 1 KiB over a stub RoundTripper, beside
// an http.Client that does the same.
func BenchmarkSuccess(b *testing.B) {
	body := bytes.Repeat([]byte("x"), 1024)
	check := func(err error) { // testify's would cost more than what is measured
		if err != nil {
			b.Fatal(err)
		}
	}
	newRequest := func(ctx context.Context) *http.Request {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://api.example.com/v1/payments", bytes.NewReader(body))
		check(err)
		req.Header.Set("Content-Type", "application/json")
		return req
	}
	use := func(client *http.Client, req *http.Request) {
		resp, err := client.Do(req)
		check(err)
		_, err = io.ReadAll(resp.Body)
		check(err)
		resp.Body.Close()
	}
	bareContext := func(client *http.Client) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		use(client, newRequest(ctx))
	}
	c, err := hermes.New(testdb.SQLite(b), hermes.WithHTTPClient(&http.Client{Transport: stub{}}))
	require.NoError(b, err)
	send := func() {
		_, err := c.SendMessage(newRequest(context.Background()))
		check(err)
	}

	b.Run("http.Client with a context timeout", func(b *testing.B) {
		b.ReportAllocs()
		client := &http.Client{Transport: stub{}}
		for b.Loop() {
			bareContext(client)
		}
	})
	b.Run("http.Client with its Timeout", func(b *testing.B) {
		b.ReportAllocs()
		client := &http.Client{Transport: stub{}, Timeout: 5 * time.Second}
		for b.Loop() {
			use(client, newRequest(context.Background()))
		}
	})
	b.Run("SendMessage", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			send()
		}
	})
	// The machine's speed drifts: the ratio is of turns taken one after the other.
	b.Run("ratio", func(b *testing.B) {
		client := &http.Client{Transport: stub{}}
		var bare, own time.Duration
		for b.Loop() {
			start := time.Now()
			for range 100 {
				bareContext(client)
			}
			middle := time.Now()
			for range 100 {
				send()
			}
			bare, own = bare+middle.Sub(start), own+time.Since(middle)
		}
		b.ReportMetric(float64(own)/float64(bare), "SendMessage/bare")
	})
}
