package testcrash

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"strconv"
	"time"
)

// receiver answers each message as its script says, and writes down what arrived.
type receiver struct {
	journal *journal
	held    chan string // gets the instance whose request is in flight
}

// listenAndServe starts a receiver. The server is to be closed.
func listenAndServe(j *journal) (*receiver, *httptest.Server) {
	r := &receiver{journal: j, held: make(chan string, 100)}
	return r, httptest.NewServer(r)
}

// ServeHTTP implements http.Handler.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // its sender was killed while it wrote
	}
	var s script
	if err := json.Unmarshal(body, &s); err != nil {
		r.journal.problem("%s: %v", req.URL, err)
	}
	if path.Base(req.URL.Path) != strconv.Itoa(s.Number) {
		r.journal.problem("%s got the body of %d", req.URL, s.Number)
	}
	number, err := strconv.ParseInt(req.Header.Get(attemptHeader), 10, 64)
	if err != nil {
		r.journal.problem("%s: %v", req.URL, err)
	}
	sender := req.Header.Get(instanceHeader)
	a := r.journal.received(s.Number, s.answerTo, request{attempt: attemptID{sender, number}, key: req.Header.Get("Idempotency-Key")})
	if a.isHeld() {
		r.hold(req, sender)
		return
	}
	select {
	case <-time.After(time.Duration(s.DelayMS) * time.Millisecond):
	case <-req.Context().Done():
	}
	respond(w, a)
}

// answerTo is the answer to a message's request, given how many there were before.
func (s script) answerTo(before int) answer {
	if before < len(s.Answers) {
		return s.Answers[before]
	}
	return accept
}

// hold lasts until the request's sender is gone.
func (r *receiver) hold(req *http.Request, sender string) {
	select {
	case r.held <- sender:
	default:
	}
	<-req.Context().Done()
	panic(http.ErrAbortHandler)
}

func respond(w http.ResponseWriter, a answer) {
	switch a {
	case refuse:
		w.WriteHeader(http.StatusServiceUnavailable)
	case drop, lose:
		panic(http.ErrAbortHandler) // closes the connection
	}
}
