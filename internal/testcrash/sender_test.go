package testcrash

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hermeshttp/hermes"
)

const (
	senderTasks   = 4       // messages that a sender sends at a time
	senderNumbers = 100_000 // how many numbers of messages it has
)

// beSender sends messages, a few at a time, until it is killed.
func beSender(ctx context.Context, spec *childSpec, log *eventLog) error {
	interval := 2 * time.Millisecond
	if spec.Phase == waiting {
		interval = time.Minute // until it is killed
	}
	c, err := newClient(spec, log, newWatcher(spec, log), hermes.WithMaxRetryAttempts(attempts-1), hermes.WithRetryInterval(interval))
	if err != nil {
		return err
	}
	var next atomic.Int64
	var tasks sync.WaitGroup
	log.note(ready, 0, 0, "")
	for task := range senderTasks {
		tasks.Go(func() {
			s := &sender{ctx, spec, log, c, rand.New(rand.NewPCG(spec.Seed, uint64(task)))}
			for ctx.Err() == nil {
				s.send(spec.First + int(next.Add(1)))
			}
		})
	}
	if spec.Job == passes || spec.Job == gathering {
		tasks.Go(func() { retryEvery(ctx, hurryPause, c, spec.Job, log) })
	}
	tasks.Wait()
	return nil
}

// sender is one of a process' tasks.
type sender struct {
	ctx    context.Context
	spec   *childSpec
	log    *eventLog
	client *hermes.Client
	rng    *rand.Rand
}

// send sends one message, and tells what was said to its sender.
func (s *sender) send(number int) {
	body, err := json.Marshal(newScript(s.rng, number, s.spec))
	if err != nil {
		s.log.failed(err)
		return
	}
	req, err := http.NewRequestWithContext(s.ctx, http.MethodPost, fmt.Sprintf("%s/%d", s.spec.Receiver, number), bytes.NewReader(body))
	if err != nil {
		s.log.failed(err)
		return
	}
	key, opts := "", []hermes.SendOption(nil)
	if s.rng.IntN(2) == 0 {
		key = "order-" + strconv.Itoa(number)
		opts = append(opts, hermes.IdempotencyKey(key))
	}
	s.log.note(intended, number, 0, key)
	resp, err := s.client.SendMessage(req, opts...)
	if err != nil {
		s.log.note(refused, number, 0, err.Error())
		return
	}
	s.log.note(accepted, number, 0, "")
	if resp.Failed() && s.spec.Job == own {
		s.retry(resp.FailedMessageID)
	}
}

func (s *sender) retry(id string) {
	_, err := s.client.RetryMessage(s.ctx, &hermes.FailedMessage{ID: id})
	for _, usual := range []error{hermes.ErrClaimed, hermes.ErrNotFound} { // a retrier was faster
		if errors.Is(err, usual) {
			return
		}
	}
	if err != nil {
		s.log.failed(err)
	}
}
