package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"time"

	"github.com/failsafe-go/failsafe-go/failsafehttp"
	"github.com/failsafe-go/failsafe-go/timeout"
	"github.com/go-resty/resty/v2"
	"github.com/gojek/heimdall/v7"
	"github.com/gojek/heimdall/v7/httpclient"
	"github.com/hashicorp/go-retryablehttp"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

// The policy of everyone: what Hermes does by default.
const (
	retries = 5
	wait    = 10 * time.Second
	limit   = 5 * time.Second // of one attempt
)

const contentType = "application/json"

// peer sends one message, reads the whole answer, and fails if it is anything but a 2xx.
type peer struct {
	name string
	send func() error
}

// Names of peers that goals refer to.
const (
	bare = "net/http with a context timeout"
	own  = "Hermes"
)

// retryClients are the libraries that retry, each set up as its documentation says, silent, and given the body in the
// form it likes best.
func retryClients(newTransport func() http.RoundTripper) []peer {
	return []peer{
		{"hashicorp/go-retryablehttp", retryable(newTransport())},
		{"failsafe-go/failsafehttp", failsafe(newTransport())},
		{"gojek/heimdall", heimdallClient(newTransport())},
		{"go-resty/resty", restyClient(newTransport())},
	}
}

func newRequest(ctx context.Context) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, hook, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	return req, nil
}

// use reads an answer, and passes on why there is none.
func use(resp *http.Response, err error) error {
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err = io.ReadAll(resp.Body); err != nil {
		return err
	}
	return checkStatus(resp.StatusCode)
}

func bareClient(transport http.RoundTripper) func() error {
	client := &http.Client{Transport: transport}
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		req, err := newRequest(ctx)
		if err != nil {
			return err
		}
		return use(client.Do(req))
	}
}

func hermesClient(db *gorm.DB, transport http.RoundTripper) (func() error, error) {
	client, err := hermes.New(db, hermes.WithHTTPClient(&http.Client{Transport: transport}))
	return func() error {
		req, err := newRequest(context.Background())
		if err != nil {
			return err
		}
		resp, err := client.SendMessage(req)
		if err != nil {
			return err
		}
		return resp.Err()
	}, err
}

func retryable(transport http.RoundTripper) func() error {
	client := retryablehttp.NewClient()
	client.HTTPClient = &http.Client{Transport: transport, Timeout: limit}
	client.RetryMax, client.RetryWaitMin, client.RetryWaitMax = retries, wait, wait
	client.Logger = nil
	return func() error {
		req, err := retryablehttp.NewRequest(http.MethodPost, hook, body)
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", contentType)
		return use(client.Do(req))
	}
}

func failsafe(transport http.RoundTripper) func() error {
	retry := failsafehttp.NewRetryPolicyBuilder().WithMaxRetries(retries).WithDelay(wait).Build()
	client := &http.Client{Transport: failsafehttp.NewRoundTripper(transport, retry, timeout.New[*http.Response](limit))}
	return func() error {
		req, err := newRequest(context.Background())
		if err != nil {
			return err
		}
		return use(client.Do(req))
	}
}

func heimdallClient(transport http.RoundTripper) func() error {
	client := httpclient.NewClient(
		httpclient.WithHTTPClient(&http.Client{Transport: transport, Timeout: limit}),
		httpclient.WithRetryCount(retries),
		httpclient.WithRetrier(heimdall.NewRetrier(heimdall.NewConstantBackoff(wait, 0))),
	)
	return func() error {
		req, err := newRequest(context.Background())
		if err != nil {
			return err
		}
		return use(client.Do(req))
	}
}

func restyClient(transport http.RoundTripper) func() error {
	client := resty.New().
		SetTransport(transport).
		SetTimeout(limit).
		SetRetryCount(retries).
		SetRetryWaitTime(wait).
		SetRetryMaxWaitTime(wait).
		AddRetryCondition(func(resp *resty.Response, _ error) bool { return resp.StatusCode() >= 500 })
	return func() error {
		resp, err := client.R().SetHeader("Content-Type", contentType).SetBody(body).Post(hook)
		if err != nil {
			return err
		}
		return checkStatus(resp.StatusCode())
	}
}
