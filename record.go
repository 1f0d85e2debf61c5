package hermes

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// failure is what a run of attempts that failed changes in the row whose claim it held.
type failure struct {
	o    *outgoing
	next *FailedMessage
	due  due
	keep bool // it is due when it was
}

// failureOf tells what to write into o's row.
func (c *Client) failureOf(o *outgoing, r *result) *failure {
	if o.row == nil { // of a message that is sent for the first time
		next, when := c.newFailedMessage(o, r)
		return &failure{o: o, next: next, due: when}
	}
	next := *o.row
	o.note(&next, r)
	next.Retryable = r.Outcome != Invalid
	f := &failure{o: o, next: &next}
	if f.keep = r.canceled && r.Outcome != Invalid; !f.keep {
		next.Retries++
		f.due = c.nextDue(o, r, next.Retries)
	}
	return f
}

// recordFailure writes into the row how a run that failed ended, if its claim is still held, and frees it.
func (c *Client) recordFailure(ctx context.Context, o *outgoing, r *result) error {
	if r.claimErr != nil && errors.Is(r.claimErr, ErrClaimLost) {
		c.claimLost(ctx, o.id)
		return r.claimErr
	}
	lost, err := c.recordFailures(ctx, c.failureOf(o, r))
	if err == nil && len(lost) > 0 {
		err = fmt.Errorf("%w: %s", ErrClaimLost, o.id)
	}
	return err
}

// recordFailures writes failures into their rows, as far as their claims are still held, and frees those. It returns the
// others, which it has reported.
func (c *Client) recordFailures(ctx context.Context, all ...*failure) (lost []*failure, err error) {
	s := c.store
	recorded := map[string]bool{}
	err = s.insistently(context.WithoutCancel(ctx), func(ctx context.Context) error {
		ids, err := s.update(ctx, all)
		for _, id := range ids {
			recorded[id] = true
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, f := range all {
		if !recorded[f.o.id] && !s.isRecorded(ctx, f.next) {
			c.claimLost(ctx, f.o.id)
			lost = append(lost, f)
		}
	}
	return lost, nil
}

// failureColumns are what update reads from each failure, in the terms of dialect.Records.
var failureColumns = []string{"id text", "token text", "status integer", "tried integer", "failed integer", "kind text",
	"why text", "may_retry boolean", "due_after double precision", "keep_due boolean", "log text"}

type failureRecord struct {
	ID       string   `json:"id"`
	Token    string   `json:"token"`
	Status   int      `json:"status"`
	Tried    int      `json:"tried"`
	Failed   int      `json:"failed"`
	Kind     string   `json:"kind"`
	Why      string   `json:"why"`
	MayRetry bool     `json:"may_retry"`
	DueAfter *float64 `json:"due_after"`
	KeepDue  bool     `json:"keep_due"`
	Log      string   `json:"log"`
}

func (f *failure) record() failureRecord {
	r := failureRecord{ID: f.o.id, Token: f.o.claim.token, Status: f.next.StatusCode, Tried: f.next.Attempts, Failed: f.next.Retries,
		Kind: string(f.next.FailureKind), Why: f.next.LastError, MayRetry: f.next.Retryable, KeepDue: f.keep,
		Log: toJSON(f.next.AttemptLog)}
	if !f.due.never {
		seconds := f.due.after.Seconds()
		r.DueAfter = &seconds
	}
	return r
}

// update writes failures in one statement, each fenced by its claim: who lost it changes nothing. It returns the IDs of
// the rows it changed.
func (s *store) update(ctx context.Context, all []*failure) ([]string, error) {
	records := make([]failureRecord, len(all))
	for i, f := range all {
		records[i] = f.record()
	}
	return s.queryIDs(ctx, sql("UPDATE failed_message SET "+free+", claims = 0, updated_at = ", s.now(),
		", status_code = v.status, attempts = v.tried, retries = v.failed, failure_kind = v.kind, last_error = v.why"+
			", retryable = v.may_retry, attempt_log = v.log, next_attempt_at = CASE WHEN v.keep_due THEN next_attempt_at ELSE "+
			strings.Replace(s.dialect.NowPlus, "?", "v.due_after", 1)+" END FROM "+s.dialect.Records(failureColumns)+" AS v",
		expr{args: []any{jsonText(records)}}, " WHERE failed_message.id = v.id AND claim_token = v.token RETURNING failed_message.id"))
}

// isRecorded tells whether a row already holds next: the update had been applied, but the answer that said so got lost.
func (s *store) isRecorded(ctx context.Context, next *FailedMessage) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.saveTimeout)
	defer cancel()
	row, err := s.get(ctx, next.ID)
	if err != nil || len(row.AttemptLog) == 0 || len(next.AttemptLog) == 0 || row.Attempts != next.Attempts {
		return false
	}
	have, want := row.AttemptLog[len(row.AttemptLog)-1], next.AttemptLog[len(next.AttemptLog)-1]
	return have.Instance == want.Instance && have.At.Equal(want.At)
}

// deleteDelivered deletes delivered messages' rows, whoever holds them by now: they must not be sent again.
func (s *store) deleteDelivered(ctx context.Context, ids ...string) error {
	return s.insistently(context.WithoutCancel(ctx), func(ctx context.Context) error {
		_, err := s.exec(ctx, sql("DELETE FROM failed_message WHERE ", in(s, "id", ids)))
		return err
	})
}
