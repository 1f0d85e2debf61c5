package hermes

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hermeshttp/hermes/internal/headertext"
)

// An Option sets how a Client or a Monitor works. Of an option given twice the last counts. New reports every bad
// value at once, as errors that match ErrInvalidOption.
type Option interface{ apply(*config) }

type optionFunc func(*config)

func (f optionFunc) apply(c *config) { f(c) }

type config struct {
	maxRetryAttempts  int
	backoff           Backoff
	requestTimeout    time.Duration
	maxRetryAfter     time.Duration
	maxPostpone       time.Duration
	redeliveryBackoff Backoff
	claimTTL          time.Duration
	durability        Durability
	saveTimeout       time.Duration
	maxBodyBytes      int64
	maxResponseBytes  int64
	policy            Policy
	httpClient        *http.Client
	schemes           map[string]http.RoundTripper
	idempotencyHeader string
	sender            string
	signer            func(*http.Request) error
	sensitive         map[string]bool
	logger            *slog.Logger
	hooks             Hooks
	instanceID        string

	errs []error
}

// claimMargin is what a claim must outlast an attempt by: the time to renew it before and to record the outcome after.
const claimMargin = 10 * time.Second

func newConfig(opts []Option) (*config, error) {
	c := &config{
		maxRetryAttempts:  5,
		backoff:           ConstantBackoff(10 * time.Second),
		requestTimeout:    5 * time.Second,
		maxRetryAfter:     time.Minute,
		maxPostpone:       24 * time.Hour,
		redeliveryBackoff: doublingBackoff{base: time.Minute, max: time.Hour},
		claimTTL:          time.Minute,
		saveTimeout:       5 * time.Second,
		maxBodyBytes:      10 << 20,
		maxResponseBytes:  1 << 20,
		policy:            DefaultPolicy,
		schemes:           map[string]http.RoundTripper{},
		idempotencyHeader: "Idempotency-Key",
		sensitive:         defaultSensitive(),
		logger:            slog.New(slog.DiscardHandler),
		instanceID:        hostAndPID(),
	}
	for _, opt := range opts {
		if opt == nil {
			c.reject("Option", "nil")
			continue
		}
		opt.apply(c)
	}
	if c.httpClient == nil {
		c.httpClient = newHTTPClient()
	}
	if c.claimTTL < c.requestTimeout+claimMargin {
		c.reject("WithClaimTTL", "%v is shorter than the request timeout plus %v", c.claimTTL, claimMargin)
	}
	return c, errors.Join(c.errs...)
}

func (c *config) reject(option, format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("%w: %s: %s", ErrInvalidOption, option, fmt.Sprintf(format, args...)))
}

// set assigns value if it is at least the least, and otherwise notes an error.
func set[T int | int64 | time.Duration](c *config, option string, field *T, value, least T) {
	if value < least {
		c.reject(option, "%v is less than %v", value, least)
		return
	}
	*field = value
}

func hostAndPID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return strings.ToValidUTF8(host, "?") + ":" + strconv.Itoa(os.Getpid())
}

// newHTTPClient makes the client of those who bring none: net/http's defaults with room for more kept connections to
// one host, less for a response's header, and pings that notice a dead HTTP/2 connection.
func newHTTPClient() *http.Client {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
	if base, ok := http.DefaultTransport.(*http.Transport); ok {
		transport = base.Clone()
	}
	transport.MaxIdleConnsPerHost = 32
	transport.MaxResponseHeaderBytes = 1 << 20
	transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second}
	return &http.Client{Transport: transport}
}

func defaultSensitive() map[string]bool {
	names := map[string]bool{}
	for _, name := range []string{
		"Authorization", "Proxy-Authorization", "Www-Authenticate", "Cookie", "Cookie2", "Referer",
		"Api-Key", "Apikey", "X-Api-Key", "X-Auth-Token", "X-Access-Token", "X-Csrf-Token", "X-Amz-Security-Token",
		"X-Goog-Iam-Authorization-Token", "X-Hub-Signature", "X-Hub-Signature-256", "X-Signature", "Signature",
		"Signature-Input", "Webhook-Signature", "Stripe-Signature",
	} {
		names[name] = true
	}
	return names
}

// WithMaxRetryAttempts sets how often SendMessage tries again after the first attempt failed, and how many attempts
// RetryMessage makes (at least one). Default 5: at most 6 requests. 0 switches retrying in process off.
func WithMaxRetryAttempts(n int) Option {
	return optionFunc(func(c *config) { set(c, "WithMaxRetryAttempts", &c.maxRetryAttempts, n, 0) })
}

// WithRetryInterval sets the wait between attempts in process. Default 10 s. It is WithBackoff(ConstantBackoff(d)).
func WithRetryInterval(d time.Duration) Option {
	return optionFunc(func(c *config) {
		var checked time.Duration
		set(c, "WithRetryInterval", &checked, d, 0)
		c.backoff = ConstantBackoff(checked)
	})
}

// WithBackoff sets the waits between attempts in process. Default: ConstantBackoff of 10 s.
func WithBackoff(b Backoff) Option {
	return optionFunc(func(c *config) {
		if b == nil {
			c.reject("WithBackoff", "nil")
			return
		}
		c.backoff = b
	})
}

// WithRequestTimeout bounds one attempt, from dialing to the last byte of the answer. Default 5 s. A shorter Timeout of
// the http.Client counts instead.
func WithRequestTimeout(d time.Duration) Option {
	return optionFunc(func(c *config) { set(c, "WithRequestTimeout", &c.requestTimeout, d, 1) })
}

// WithMaxRetryAfter sets the longest wait asked for by a Retry-After header that is waited for in process. Default 1 m.
// If the receiver asks for more, the message becomes a row that is due then.
func WithMaxRetryAfter(d time.Duration) Option {
	return optionFunc(func(c *config) { set(c, "WithMaxRetryAfter", &c.maxRetryAfter, d, 0) })
}

// WithMaxPostpone caps how far away a Retry-After header can put a row's next attempt. Default 24 h.
func WithMaxPostpone(d time.Duration) Option {
	return optionFunc(func(c *config) { set(c, "WithMaxPostpone", &c.maxPostpone, d, 0) })
}

// WithRedeliveryBackoff sets when a row whose retry failed is due again; the retries that failed count from 1.
// Default: after 1 m, doubling to 1 h. A message's own Schedule comes before it.
func WithRedeliveryBackoff(b Backoff) Option {
	return optionFunc(func(c *config) {
		if b == nil {
			c.reject("WithRedeliveryBackoff", "nil")
			return
		}
		c.redeliveryBackoff = b
	})
}

// WithClaimTTL sets for how long a gathered row is this instance's alone. Default 1 m; at least the request timeout
// plus 10 s. RetryMessage renews the claim as long as it works; when an instance dies, its rows are free again after
// this time.
func WithClaimTTL(d time.Duration) Option {
	return optionFunc(func(c *config) { set(c, "WithClaimTTL", &c.claimTTL, d, 1) })
}

// WithDurability sets when a message becomes a row. Default: SaveAfterRetries.
func WithDurability(d Durability) Option {
	return optionFunc(func(c *config) {
		if d < SaveAfterRetries || d > SaveBeforeSend {
			c.reject("WithDurability", "there is no %d", d)
			return
		}
		c.durability = d
	})
}

// WithSaveTimeout bounds the writing of one outcome, repeated attempts at it included. Default 5 s.
func WithSaveTimeout(d time.Duration) Option {
	return optionFunc(func(c *config) { set(c, "WithSaveTimeout", &c.saveTimeout, d, 1) })
}

// WithMaxBodyBytes bounds a message's body, which is kept in memory while the message is being sent. Default 10 MiB.
// A longer one is refused with ErrBodyTooLarge.
func WithMaxBodyBytes(n int64) Option {
	return optionFunc(func(c *config) { set(c, "WithMaxBodyBytes", &c.maxBodyBytes, n, 0) })
}

// WithMaxResponseBytes bounds Response.Body, counted after decompression. Default 1 MiB. Of a longer body the beginning
// is kept and Response.Truncated is set.
func WithMaxResponseBytes(n int64) Option {
	return optionFunc(func(c *config) { set(c, "WithMaxResponseBytes", &c.maxResponseBytes, n, 0) })
}

// WithPolicy sets what an answer, or none, means. Default: DefaultPolicy.
func WithPolicy(p Policy) Option {
	return optionFunc(func(c *config) {
		if p == nil {
			c.reject("WithPolicy", "nil")
			return
		}
		c.policy = p
	})
}

// WithHTTPClient sets what HTTP requests are sent with. Its Transport, Jar, CheckRedirect and Timeout (per attempt) are
// honoured, it is not modified. Switch its own retries off: Hermes retries. Default: a client of Hermes' own.
func WithHTTPClient(client *http.Client) Option {
	return optionFunc(func(c *config) {
		if client == nil {
			c.reject("WithHTTPClient", "nil")
			return
		}
		c.httpClient = client
	})
}

// WithScheme has requests whose URL has this scheme sent by rt: what is not HTTP is a RoundTripper whose response's
// status tells how it went. The scheme must not be http or https.
func WithScheme(scheme string, rt http.RoundTripper) Option {
	return optionFunc(func(c *config) {
		switch {
		case rt == nil:
			c.reject("WithScheme", "nil for %q", scheme)
		case !isScheme(scheme):
			c.reject("WithScheme", "%q is not a lower-case URL scheme", scheme)
		case scheme == "http" || scheme == "https":
			c.reject("WithScheme", "%s is what WithHTTPClient is for", scheme)
		default:
			c.schemes[scheme] = rt
		}
	})
}

func isScheme(s string) bool {
	for i := range len(s) {
		letter := 'a' <= s[i] && s[i] <= 'z'
		if !letter && (i == 0 || !('0' <= s[i] && s[i] <= '9' || strings.IndexByte("+-.", s[i]) >= 0)) {
			return false
		}
	}
	return s != ""
}

// WithIdempotencyHeader names the header that carries a message's idempotency key. Default "Idempotency-Key"; "" sends
// none. If the request already has this header, its value is the message's key.
//
// A request without a body that is not safe (a DELETE, say) carries the default name in lower case in its header map,
// which net/http would otherwise take as leave to re-send it unseen; a RoundTripper must look it up both ways.
func WithIdempotencyHeader(name string) Option {
	return optionFunc(func(c *config) {
		if name != "" && !headertext.ValidName(name) {
			c.reject("WithIdempotencyHeader", "%q is not a header name", name)
			return
		}
		c.idempotencyHeader = http.CanonicalHeaderKey(name)
	})
}

// WithSender names the service on whose behalf this client saves messages. Its jobs gather rows of this name only, so
// that several services can share a table. Default "".
func WithSender(name string) Option {
	return optionFunc(func(c *config) {
		if !isStorable(name) {
			c.reject("WithSender", "%q has a NUL or is not UTF-8", name)
			return
		}
		c.sender = name
	})
}

// WithRequestSigner sets what adds to a request, before every attempt and every redirect within its origin, that which
// must never be stored: an Authorization header, a signature, a query. It may read the body and change URL, Host and
// Header of the request it gets, nothing else. It gets requests to every host that this client sends to, or a job with its
// WithSender: it must look at the host before it gives away what is meant for another. An error or a panic fails the
// attempt, which can be retried; nothing is sent then. It is called by many goroutines.
func WithRequestSigner(sign func(*http.Request) error) Option {
	return optionFunc(func(c *config) {
		if sign == nil {
			c.reject("WithRequestSigner", "nil")
			return
		}
		c.signer = sign
	})
}

// WithSensitiveHeaders adds names of headers that a redirect to another origin must not carry there, beside
// Authorization, Cookie and others known for it.
func WithSensitiveHeaders(names ...string) Option {
	return optionFunc(func(c *config) {
		for _, name := range names {
			if !headertext.ValidName(name) {
				c.reject("WithSensitiveHeaders", "%q is not a header name", name)
				continue
			}
			c.sensitive[http.CanonicalHeaderKey(name)] = true
		}
	})
}

// WithLogger sets where to say what is worth knowing: at Error messages that were not saved and rows that cannot be read,
// at Warn saved messages, lost claims and rows that end as poison, at Debug failed attempts. No header value, body, userinfo
// or query is logged. Default: silence.
func WithLogger(logger *slog.Logger) Option {
	return optionFunc(func(c *config) {
		if logger == nil {
			c.reject("WithLogger", "nil")
			return
		}
		c.logger = logger
	})
}

// WithHooks sets functions to call as things happen.
func WithHooks(hooks Hooks) Option {
	return optionFunc(func(c *config) { c.hooks = hooks })
}

// WithInstanceID names this process in claims and in the log of attempts. Default: host name and process ID.
func WithInstanceID(id string) Option {
	return optionFunc(func(c *config) {
		if id == "" || !isStorable(id) {
			c.reject("WithInstanceID", "%q is empty, has a NUL or is not UTF-8", id)
			return
		}
		c.instanceID = id
	})
}
