package testcrash

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"strconv"
	"time"

	"github.com/hermeshttp/hermes"
)

// childEnv is the environment of a child process: a childSpec.
const childEnv = "HERMES_CRASH_CHILD"

// Of all clients. The shortest claims that there can be end the wait for those of the dead soonest.
const (
	requestTimeout = 300 * time.Millisecond
	claimMargin    = 10 * time.Second
	claimTTL       = requestTimeout + claimMargin
)

// saveTimeout is long, as a loaded machine's disk may stand still for seconds. What Hermes does then is not the subject.
const saveTimeout = 20 * time.Second

// childSpec is what a child process is told.
type childSpec struct {
	Name       string // of the instance
	DSN        string
	Receiver   string // its URL
	Durability hermes.Durability
	Unfenced   bool // claims bind nobody
	IsSender   bool // or retries only
	Job        job

	// Of a sender.
	Seed  uint64
	First int // message number
	Phase phase
	Point point
	Visit int // of Point, from 1
}

// beChild is a child process' main.
func beChild(text string) int {
	log := &eventLog{out: os.Stdout}
	var spec childSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		log.failed(err)
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // the end of standard input is the word to end, or the end of the parent
		_, _ = io.Copy(io.Discard, os.Stdin)
		if spec.IsSender {
			os.Exit(1) // senders are killed, unless nobody is there to do it
		}
		cancel()
	}()
	role := beRetrier
	if spec.IsSender {
		role = beSender
	}
	if err := role(ctx, &spec, log); err != nil {
		log.failed(err)
		return 1
	}
	return 0
}

// What a request carries that is not stored: whose attempt it is.
const (
	instanceHeader = "Crash-Instance"
	attemptHeader  = "Crash-Attempt"
)

type attemptKey struct{}

// newClient makes a child's client, which tells log about its attempts.
func newClient(spec *childSpec, log *eventLog, watch *watcher, opts ...hermes.Option) (*hermes.Client, error) {
	db, err := openWatched(spec, watch)
	if err != nil {
		return nil, err
	}
	hooks := hermes.Hooks{
		AttemptStart: func(ctx context.Context, info hermes.AttemptStartInfo) context.Context {
			id := log.attempts.Add(1)
			log.note(attemptStarted, numberOf(info.URL), id, fmt.Sprintf("%d %t", info.Number, info.Retry))
			watch.attemptStarted(info)
			return context.WithValue(ctx, attemptKey{}, id)
		},
		AttemptDone: func(ctx context.Context, info hermes.AttemptDoneInfo) {
			log.note(attemptDone, numberOf(info.URL), ctx.Value(attemptKey{}).(int64), fmt.Sprintf("%d %s", info.StatusCode, info.Kind))
			watch.attemptDone(info)
		},
		ClaimLost: func(_ context.Context, info hermes.ClaimLostInfo) {
			log.note(claimLost, 0, 0, info.MessageID)
		},
	}
	sign := func(req *http.Request) error {
		req.Header.Set(instanceHeader, spec.Name)
		req.Header.Set(attemptHeader, strconv.FormatInt(req.Context().Value(attemptKey{}).(int64), 10))
		return nil
	}
	return hermes.New(db, append([]hermes.Option{
		hermes.WithRequestTimeout(requestTimeout), hermes.WithClaimTTL(claimTTL), hermes.WithInstanceID(spec.Name),
		hermes.WithDurability(spec.Durability), hermes.WithRedeliveryBackoff(hermes.ConstantBackoff(50 * time.Millisecond)),
		hermes.WithSaveTimeout(saveTimeout), hermes.WithHooks(hooks), hermes.WithRequestSigner(sign),
	}, opts...)...)
}

// numberOf is the number of the message that goes to a URL.
func numberOf(url string) int {
	n, err := strconv.Atoi(path.Base(url))
	if err != nil {
		panic(err)
	}
	return n
}
