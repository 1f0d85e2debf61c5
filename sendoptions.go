package hermes

import (
	"slices"
	"time"
)

// A SendOption sets something about one message.
type SendOption interface{ applySend(*sendConfig) }

type sendOptionFunc func(*sendConfig)

func (f sendOptionFunc) applySend(c *sendConfig) { f(c) }

type sendConfig struct {
	metadata map[string]string
	key      string
	schedule []time.Duration
	notAfter time.Time
	noSave   bool
}

// Metadata attaches labels to the message, to find it by. They are stored readable: no place for secrets.
func Metadata(labels map[string]string) SendOption {
	return sendOptionFunc(func(c *sendConfig) { c.metadata = labels })
}

// IdempotencyKey sets the message's idempotency key, for ever the same over every attempt. Default: the value of the
// request's own header of that name (WithIdempotencyHeader), else the message's ID. It must be of visible ASCII characters.
func IdempotencyKey(key string) SendOption {
	return sendOptionFunc(func(c *sendConfig) { c.key = key })
}

// Schedule sets when the message's row is to be retried: the n-th retry the n-th delay after the row was saved or its
// last retry failed. When that many have failed the row is exhausted. Without it, a row is due at once and then by
// WithRedeliveryBackoff, for ever.
func Schedule(delays ...time.Duration) SendOption {
	return sendOptionFunc(func(c *sendConfig) { c.schedule = slices.Clone(delays) })
}

// NotAfter sets when the message is of no use any more. From then on it is not attempted; its row, if there is one, is
// exhausted. A time that has passed is ErrInvalidMessage.
func NotAfter(t time.Time) SendOption {
	return sendOptionFunc(func(c *sendConfig) { c.notAfter = t })
}

// SaveOnFailure says whether the message becomes a row if it cannot be delivered. Default: true. With false it never does,
// and its failure is an error, a *SendError.
func SaveOnFailure(save bool) SendOption {
	return sendOptionFunc(func(c *sendConfig) { c.noSave = !save })
}
