package main

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
)

// flakyReceiver is a server as other people's are.
type flakyReceiver struct {
	*httptest.Server
	requests  atomic.Int32 // to /flaky
	recovered atomic.Bool
}

func startFlakyReceiver() *flakyReceiver {
	r := &flakyReceiver{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /healthy", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("POST /flaky", func(w http.ResponseWriter, _ *http.Request) {
		if r.requests.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("POST /picky", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnprocessableEntity) })
	mux.HandleFunc("POST /down", func(w http.ResponseWriter, _ *http.Request) {
		if !r.recovered.Load() {
			panic(http.ErrAbortHandler) // drops the connection
		}
	})
	r.Server = httptest.NewServer(mux)
	return r
}

func (r *flakyReceiver) recover() { r.recovered.Store(true) }
