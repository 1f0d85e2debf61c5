package hermes

import "time"

// due is when a row is to be attempted again, by the database's clock.
type due struct {
	never bool // it is invalid or exhausted
	after time.Duration
}

func (d due) from(now time.Time) *time.Time {
	if d.never {
		return nil
	}
	at := now.Add(d.after)
	return &at
}

// firstDue tells when a message that is saved is to be attempted again.
func (c *Client) firstDue(o *outgoing, r *result) due {
	var delay time.Duration
	if len(o.config.schedule) > 0 {
		delay = o.config.schedule[0]
	}
	return c.dueAfter(o, r, delay)
}

// nextDue tells when a row whose retries have failed that often is to be attempted again.
func (c *Client) nextDue(o *outgoing, r *result, retries int) due {
	delay := c.redeliveryBackoff.Delay(retries)
	if schedule := o.config.schedule; len(schedule) > 0 {
		if retries >= len(schedule) {
			return due{never: true}
		}
		delay = schedule[retries]
	}
	// Not at once, by a clock of milliseconds: the pass in which it failed would send it again.
	return c.dueAfter(o, r, max(time.Millisecond, delay))
}

// dueAfter heeds what bears on a delay: the receiver's Retry-After, if longer, and the message's NotAfter.
func (c *Client) dueAfter(o *outgoing, r *result, delay time.Duration) due {
	delay = max(delay, min(r.retryAfter, c.maxPostpone))
	if r.Outcome == Invalid || o.config.hasPassed(delay) {
		return due{never: true}
	}
	return due{after: delay}
}
