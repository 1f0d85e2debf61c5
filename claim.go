package hermes

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hermeshttp/hermes/internal/uuidv7"
)

const (
	// poisonClaims is how many claims without an outcome make a row poison.
	poisonClaims = 10
	// suspectClaims is how many make it suspect: from then on it is gathered alone, so that what ends the process that
	// sends it does not take along the rows gathered with it, claim by claim, until they count as poison too.
	suspectClaims = 3
)

// GatherOptions says which rows to gather. The zero value gathers the 100 that are due longest.
type GatherOptions struct {
	Limit  int    // 0 or less: 100. Take what can be sent within WithClaimTTL
	Filter Filter // among those due
}

const defaultGatherLimit = 100

// GatherFailedMessagesForRetry claims rows that are due, of this client's WithSender, those due longest first, and
// returns them. Until WithClaimTTL has passed no other gather returns them, on this instance or another, whatever their
// clocks say; hand each to RetryMessage, or give it back with Release. No row is due: an empty result and a nil error.
//
// A row whose NotAfter has passed becomes exhausted and is not returned. One that was claimed more than 10 times while
// no outcome was recorded becomes invalid, KindPoison; from the fourth time it is gathered alone, when nothing else is
// due. One that cannot be read is postponed and reported to the logger and Hooks.Unreadable.
//
// It fails with ErrShutdown after Shutdown. It is safe for concurrent use by any number of instances.
func (c *Client) GatherFailedMessagesForRetry(ctx context.Context, opts GatherOptions) ([]*FailedMessage, error) {
	if c.isStopped() {
		return nil, ErrShutdown
	}
	limit := opts.Limit
	if limit <= 0 {
		limit = defaultGatherLimit
	}
	msgs, err := c.gather(ctx, dueRows{filter: opts.Filter, claims: notSuspect}, limit, uuidv7.New())
	if err != nil || len(msgs) > 0 {
		return msgs, err
	}
	return c.gather(ctx, dueRows{filter: opts.Filter, claims: isSuspect}, 1, uuidv7.New())
}

const (
	isSuspect  = "claims >= "
	notSuspect = "claims < "
)

// dueRows says which of the rows that are due to claim.
type dueRows struct {
	filter   Filter
	claims   string         // condition on how often it was claimed; "": any
	since    time.Time      // due by this time, by the database's clock; zero: by now
	after    *FailedMessage // behind this one, in the order in which rows are due; nil: from the first on
	again    bool           // that one included
	host     string         // "": any
	notHosts []string
}

// gather claims until it has rows to return, or there are none: those that are claimed and found to be of no use do not
// stand in the way of others. Repeated with the same proof, it also returns what it claimed while its answer got lost.
func (c *Client) gather(ctx context.Context, which dueRows, limit int, proof string) ([]*FailedMessage, error) {
	own := token(proof)
	for {
		found, err := c.claimDue(ctx, which, limit, own)
		if err != nil {
			return nil, fmt.Errorf("hermes: gathering: %w", err)
		}
		var usable []*FailedMessage
		for _, msg := range found {
			switch {
			case msg.ClaimToken != own:
				c.retired(ctx, msg)
			case msg.unreadable != nil:
				if err := c.postpone(ctx, msg); err != nil {
					return nil, fmt.Errorf("hermes: postponing %s: %w", msg.ID, err)
				}
			default:
				msg.ClaimToken = proof
				usable = append(usable, msg)
			}
		}
		if len(usable) > 0 || len(found) == 0 {
			slices.SortFunc(usable, compareDue)
			return usable, nil
		}
	}
}

// compareDue is the order in which rows that are due are claimed.
func compareDue(a, b *FailedMessage) int {
	return cmp.Or(a.NextAttemptAt.Compare(*b.NextAttemptAt), strings.Compare(a.ID, b.ID))
}

// claimSet is the SET of a claim. A row that has had its day is retired instead: it keeps no claim, and
// RETURNING shows that it did not get the token. held is the condition that the caller holds the row already: then it
// is no further claim.
func (c *Client) claimSet(token string, held expr) expr {
	now := c.store.now()
	poison := sql("(claims >= ", arg(poisonClaims), " AND NOT ", held, ")")
	retired := sql("(not_after <= ", now, " OR ", poison, ")")
	unless := func(column string, retiredValue string, value expr) expr {
		return sql(column, " = CASE WHEN ", retired, " THEN ", retiredValue, " ELSE ", value, " END, ")
	}
	return sql(
		unless("claim_token", "''", sql("CAST(", arg(token), " AS text)")),
		unless("claimed_by", "''", sql("CAST(", arg(c.instanceID), " AS text)")),
		unless("claimed_until", "NULL", c.store.nowPlus(c.claimTTL)),
		unless("next_attempt_at", "NULL", expr{text: "next_attempt_at"}),
		"updated_at = CASE WHEN ", retired, " THEN ", now, " ELSE updated_at END, ",
		"retryable = (retryable AND NOT ", poison, "), ",
		"failure_kind = CASE WHEN ", poison, " THEN '"+string(KindPoison)+"' ELSE failure_kind END, ",
		"last_error = CASE WHEN ", poison, " THEN 'claimed more than 10 times, no outcome recorded' ELSE last_error END, ",
		"claims = claims + CASE WHEN ", held, " THEN 0 ELSE 1 END",
	)
}

// unclaimed is the condition that nobody holds the row.
func (s *store) unclaimed() expr {
	return sql("(claimed_until IS NULL OR claimed_until <= ", s.now(), ")")
}

func (c *Client) claimDue(ctx context.Context, which dueRows, limit int, token string) ([]*FailedMessage, error) {
	s := c.store
	held := sql("claim_token = ", arg(token))
	where := append(s.conditions(which.filter),
		sql("sender = ", arg(c.sender)),
		sql("next_attempt_at <= ", s.timeOr(&which.since, s.now())),
		expr{text: "retryable"},
		sql("(", s.unclaimed(), " OR ", held, ")"),
	)
	if which.claims != "" {
		where = append(where, sql(which.claims, arg(suspectClaims)))
	}
	if which.after != nil {
		behind := " > "
		if which.again {
			behind = " >= "
		}
		where = append(where, sql("(next_attempt_at, id)"+behind+"(", s.time(*which.after.NextAttemptAt), ", ", arg(which.after.ID), ")"))
	}
	if which.host != "" {
		where = append(where, sql("host = ", arg(which.host)))
	}
	if len(which.notHosts) > 0 {
		where = append(where, sql("NOT ", in(s, "host", which.notHosts)))
	}
	// The rows are chosen in a part of the statement that is evaluated once: as a plain subquery, it could be
	// evaluated again and lock more than the limit.
	start := time.Now()
	defer func() { s.makeWay(ctx, time.Since(start)) }()
	return s.query(ctx, sql(
		"WITH chosen AS MATERIALIZED (SELECT id FROM failed_message WHERE ", list(where, " AND "),
		" ORDER BY next_attempt_at, id LIMIT ", arg(limit), " ", s.dialect.LockRows(), ")",
		" UPDATE failed_message SET ", c.claimSet(token, held),
		" WHERE id IN (SELECT id FROM chosen) RETURNING "+columns))
}

// makeWay lets other processes get hold of SQLite's one write lock, for which they do not queue: they look from time to
// time whether it is free, and one that takes it again at once would hardly ever let them. After a claim it stays away
// for as long as the claim took.
func (s *store) makeWay(ctx context.Context, held time.Duration) {
	if s.dialect.LocksQueue() {
		return
	}
	timer := time.NewTimer(min(held, 20*time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// token is what a row keeps of a claim. The proof cannot be had from it: who reads the row does not hold the claim.
func token(proof string) string {
	sum := sha256.Sum256([]byte(proof))
	return hex.EncodeToString(sum[:16])
}

// free is the SET that ends a claim.
const free = "claim_token = '', claimed_by = '', claimed_until = NULL"

// postpone gives a row back that cannot be read, to be looked at again later, as it is.
func (c *Client) postpone(ctx context.Context, msg *FailedMessage) error {
	c.unreadable(ctx, msg.ID, msg.unreadable)
	later := max(time.Minute, c.redeliveryBackoff.Delay(msg.Retries+1))
	_, err := c.store.exec(ctx, sql("UPDATE failed_message SET "+free+", claims = 0, next_attempt_at = ", c.store.nowPlus(later),
		" WHERE id = ", arg(msg.ID), " AND claim_token = ", arg(msg.ClaimToken)))
	return err
}

// Release gives claims back unsent, so that other instances need not wait until they run out. A claim that is another's
// by now, or has ended, is left alone, and so is a message without one.
func (c *Client) Release(ctx context.Context, msgs ...*FailedMessage) error {
	byToken := map[string][]string{}
	for _, msg := range msgs {
		if msg != nil && msg.ClaimToken != "" {
			held := token(msg.ClaimToken)
			byToken[held] = append(byToken[held], msg.ID)
		}
	}
	for token, ids := range byToken {
		if _, err := c.release(ctx, token, ids); err != nil {
			return fmt.Errorf("hermes: releasing: %w", err)
		}
	}
	return nil
}

func (c *Client) release(ctx context.Context, token string, ids []string) (int64, error) {
	return c.store.exec(ctx, sql("UPDATE failed_message SET "+free+", claims = CASE WHEN claims > 0 THEN claims - 1 ELSE 0 END",
		" WHERE claim_token = ", arg(token), " AND ", in(c.store, "id", ids)))
}

// claim is what a call holds of a row.
type claim struct {
	id, token string
	by        string        // for inserting the row with its claim
	ttl       time.Duration // the same
	until     time.Time     // by this process' clock, and not after it runs out by the database's
}

// newClaim is a claim about to be made, of which nobody else has the proof.
func (c *Client) newClaim(id string) *claim {
	return &claim{id: id, token: token(uuidv7.New()), by: c.instanceID, ttl: c.claimTTL, until: time.Now().Add(c.claimTTL)}
}

// take claims the row with this ID, if it is free or proof proves the claim it has, and returns what is in it. The claim's
// new proof is known to this call alone, so that of several with the same one only the first goes on.
func (c *Client) take(ctx context.Context, id, proof string) (*claim, *FailedMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, c.saveTimeout)
	defer cancel()
	s := c.store
	own := c.newClaim(id)
	held := sql("claim_token = ", arg(token(proof)))
	rows, err := s.query(ctx, sql("UPDATE failed_message SET ", c.claimSet(own.token, held),
		" WHERE id = ", key(id), " AND retryable AND next_attempt_at IS NOT NULL AND (", s.unclaimed(), " OR ", held, ")",
		" RETURNING "+columns))
	if err != nil {
		return nil, nil, fmt.Errorf("hermes: claiming %s: %w", id, err)
	}
	if len(rows) == 0 {
		return nil, nil, c.whyNotTaken(ctx, id)
	}
	if rows[0].ClaimToken != own.token {
		return nil, nil, fmt.Errorf("%w: %s is %s", ErrNotRetryable, id, rows[0].State())
	}
	return own, rows[0], nil
}

func (c *Client) whyNotTaken(ctx context.Context, id string) error {
	msg, err := c.store.get(ctx, id)
	if err != nil {
		return err
	}
	if !msg.Retryable || msg.NextAttemptAt == nil {
		return fmt.Errorf("%w: %s is %s", ErrNotRetryable, id, msg.State())
	}
	return fmt.Errorf("%w: %s, by %s", ErrClaimed, id, msg.ClaimedBy)
}

// renew keeps a claim for another WithClaimTTL. It fails with ErrClaimLost if it is no longer held.
func (c *Client) renew(ctx context.Context, held *claim) error {
	start := time.Now()
	err := c.store.fenced(ctx, held, sql("claimed_until = ", c.store.nowPlus(c.claimTTL)))
	if err != nil {
		return err
	}
	held.until = start.Add(c.claimTTL)
	return nil
}

// fenced updates the row whose claim is held, and no other: who lost the claim changes nothing.
func (s *store) fenced(ctx context.Context, held *claim, set expr) error {
	var touched int64
	err := s.insistently(context.WithoutCancel(ctx), func(ctx context.Context) (err error) {
		touched, err = s.exec(ctx, sql("UPDATE failed_message SET ", set, " WHERE id = ", arg(held.id), " AND claim_token = ", arg(held.token)))
		return err
	})
	if err == nil && touched == 0 {
		return fmt.Errorf("%w: %s", ErrClaimLost, held.id)
	}
	return err
}
