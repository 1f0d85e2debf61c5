package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// hook is where rows are to be sent. No such host exists: a stub answers, or dialLoopback connects elsewhere.
const hook = "http://receiver.example/hook"

var body = bytes.Repeat([]byte("x"), 1024)

// stub is a RoundTripper that reads the body and answers with two bytes.
type stub struct {
	status int
	seen   func(*http.Request) // nil: nobody wants to know
}

func (s stub) RoundTrip(req *http.Request) (*http.Response, error) {
	_, err := io.Copy(io.Discard, req.Body)
	if err := errors.Join(err, req.Body.Close()); err != nil {
		return nil, err
	}
	if s.seen != nil {
		s.seen(req)
	}
	return &http.Response{
		StatusCode:    s.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        http.Header{"Content-Type": {"text/plain"}},
		ContentLength: 2,
		Body:          io.NopCloser(bytes.NewReader([]byte("ok"))),
		Request:       req,
	}, nil
}

// receiver is an HTTP server on the loopback interface that does what stub does.
type receiver struct {
	server *http.Server
	addr   string
	served chan error
}

func startReceiver(ctx context.Context) (*receiver, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &receiver{addr: listener.Addr().String(), served: make(chan error, 1), server: &http.Server{
		ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			io.Copy(io.Discard, req.Body)
			w.Header().Set("Content-Type", "text/plain")
			io.WriteString(w, "ok") //nolint:errcheck // the sender notices
		}),
	}}
	go func() { r.served <- r.server.Serve(listener) }()
	return r, nil
}

// transport is a RoundTripper that takes all requests to the receiver, whatever their host, and keeps this many
// connections alive.
func (r *receiver) transport(connections int) *http.Transport {
	return &http.Transport{
		MaxIdleConns:        connections,
		MaxIdleConnsPerHost: connections,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, r.addr)
		},
	}
}

func (r *receiver) stop() error {
	err := r.server.Close()
	if serveErr := <-r.served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return err
}
