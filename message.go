package hermes

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hermeshttp/hermes/internal/headertext"
	"github.com/hermeshttp/hermes/internal/uuidv7"
	"github.com/hermeshttp/hermes/internal/wire"
)

// outgoing is a message on its way: what is sent, and the run of attempts it is in.
type outgoing struct {
	wire.Message
	id     string
	config sendConfig
	row    *FailedMessage // the row it comes from; nil if it comes from a caller
	claim  *claim         // what is held of the row; nil without one
	tried  *claim         // with which it became a row before it was delivered, or may have; nil: it did not
	stream bool           // for Transport: redirects are the caller's to follow, a 2xx body its to read

	trace  wire.Trace
	sent   *http.Request      // the last one, signed
	cancel context.CancelFunc // of the attempt in flight; guarded by Client.mu
	log    []AttemptRecord
	result result
}

// newOutgoing checks req and takes all of it that is needed, its body read and closed. What it refuses, nothing was
// sent or saved of.
func (c *Client) newOutgoing(req *http.Request, opts []SendOption) (*outgoing, error) {
	if req == nil {
		return nil, invalid("request", "nil")
	}
	if req.Body != nil {
		defer req.Body.Close()
	}
	o := &outgoing{id: uuidv7.New()}
	for _, opt := range opts {
		if opt == nil {
			return nil, invalid("SendOption", "nil")
		}
		opt.applySend(&o.config)
	}
	if err := c.checkRequest(req); err != nil {
		return nil, err
	}
	if err := o.config.check(); err != nil {
		return nil, err
	}
	o.Template, o.Header = req, req.Header
	if err := o.takeHeader(c.idempotencyHeader); err != nil {
		return nil, err
	}
	body, err := readRequestBody(req, c.maxBodyBytes)
	if err != nil {
		return nil, err
	}
	o.Body = body
	return o, nil
}

// mustGoOnce tells whether it is a message that net/http would re-send although it is not safe.
func (o *outgoing) mustGoOnce() bool { return len(o.Body) == 0 && !wire.IsSafe(o.Template.Method) }

// takeHeader checks the header, and settles the idempotency key: the caller's option, the request's own header, or the
// message's ID.
func (o *outgoing) takeHeader(keyName string) error {
	own, err := o.CopyHeader(keyName, checkField)
	if err != nil {
		return err
	}
	key := cmp.Or(o.config.key, own, o.id)
	if key != o.id && !isVisibleASCII(key) {
		return invalid("idempotency key", "not of visible ASCII characters")
	}
	o.config.key = key
	o.KeyName, o.KeyValue = keyName, key
	return nil
}

func checkHeader(header http.Header) error {
	for name, values := range header {
		if err := checkField(name, values); err != nil {
			return err
		}
	}
	return nil
}

func checkField(name string, values []string) error {
	if !headertext.ValidName(name) {
		return invalid("header", "the name %q cannot be sent", name)
	}
	for _, value := range values {
		if !headertext.ValidValue(value) {
			return invalid("header", "a value of %s has a control character", name)
		}
	}
	return nil
}

func invalid(what, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrInvalidMessage, what, fmt.Sprintf(format, args...))
}

// checkRequest refuses what net/http would refuse, what cannot be stored, and what could not be sent the same again; the
// header is checked as it is copied.
func (c *Client) checkRequest(req *http.Request) error {
	if req.Method != "" && !headertext.ValidName(req.Method) || req.Method == http.MethodConnect {
		return invalid("method", "%q cannot be sent", req.Method)
	}
	if err := c.checkURL(req.URL); err != nil {
		return err
	}
	switch {
	case req.RequestURI != "":
		return invalid("RequestURI", "set, as in a request that a server received")
	case len(req.Trailer) > 0:
		return invalid("Trailer", "cannot be sent again")
	case req.Host != req.URL.Host && !isHostHeader(req.Host):
		return invalid("Host", "%q cannot be sent", req.Host)
	}
	return nil
}

func (c *Client) checkURL(u *url.URL) error {
	if u == nil {
		return invalid("URL", "nil")
	}
	switch {
	case c.schemes[u.Scheme] != nil:
		return checkSameAgain(u)
	case isPlainURL(u):
		return nil
	case u.Scheme != "http" && u.Scheme != "https":
		return invalid("URL", "the scheme %q is neither http nor https nor registered by WithScheme", u.Scheme)
	case u.Opaque != "":
		return invalid("URL", "opaque")
	case u.Hostname() == "":
		return invalid("URL", "no host")
	case !isHostHeader(u.Host), strings.HasSuffix(u.Host, ":"), u.Host[0] != '[' && strings.Contains(u.Hostname(), ":"):
		return invalid("URL", "the host %q cannot be sent", u.Host)
	case !isPort(u.Port()):
		return invalid("URL", "the port %s is not one", u.Port())
	}
	return checkSameAgain(u)
}

// isPlainURL tells of most URLs, without trying, that they can be sent and that their text is read back as the same.
func isPlainURL(u *url.URL) bool {
	return (u.Scheme == "https" || u.Scheme == "http") && u.Opaque == "" && u.User == nil && isPlainHost(u.Host) &&
		(u.Path == "" || u.Path[0] == '/') && isVisibleASCII(u.Path) && u.RawPath == "" && u.RawQuery == ""
}

func isPlainHost(host string) bool {
	for i := range len(host) {
		if c := host[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' {
			return false
		}
	}
	return host != ""
}

// checkSameAgain makes sure that the URL, stored as text, can be sent as it is now.
func checkSameAgain(u *url.URL) error {
	text := u.String()
	if !isStorable(text) {
		return invalid("URL", "has a NUL or is not UTF-8")
	}
	for i := range len(u.RawQuery) {
		if c := u.RawQuery[i]; c <= ' ' || c == '#' || c == 0x7f {
			return invalid("URL", "the query has an unescaped %q", c)
		}
	}
	again, err := url.Parse(text)
	if err != nil || again.RequestURI() != u.RequestURI() || again.Host != u.Host || again.Opaque != u.Opaque {
		return invalid("URL", "its text is not read back as the same")
	}
	return nil
}

func isPort(port string) bool {
	if port == "" {
		return true
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// isHostHeader tells whether host can stand in a Host header: no space, control character or part of another URL
// component. Letters above ASCII are for net/http to encode.
func isHostHeader(host string) bool {
	for i := range len(host) {
		if notInHost[host[i]] {
			return false
		}
	}
	return utf8.ValidString(host)
}

var notInHost = func() (table [256]bool) {
	for c := range ' ' + 1 {
		table[c] = true
	}
	for _, c := range []byte("\x7f\"#/<>?@\\^{|}`") {
		table[c] = true
	}
	return table
}()

func isVisibleASCII(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// isStorable tells whether PostgreSQL takes s as text.
func isStorable(s string) bool {
	return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}

func (c *sendConfig) check() error {
	for key, value := range c.metadata {
		if !isStorable(key) || !isStorable(value) {
			return invalid("metadata", "%q has a NUL or is not UTF-8", key)
		}
	}
	for i, delay := range c.schedule {
		if delay < 0 {
			return invalid("schedule", "delay %d is negative: %v", i+1, delay)
		}
	}
	if !hasStorableYear(c.notAfter) {
		return invalid("NotAfter", "not in a year from 1 to 9999: %v", c.notAfter)
	}
	if c.hasPassed(0) {
		return invalid("NotAfter", "has passed: %v", c.notAfter)
	}
	return nil
}

// hasStorableYear tells whether t can be written as text that sorts as times do, and in JSON.
func hasStorableYear(t time.Time) bool {
	year := t.UTC().Year()
	return 1 <= year && year <= 9999
}

// hasPassed tells whether NotAfter will have passed after a wait.
func (c *sendConfig) hasPassed(wait time.Duration) bool {
	return !c.notAfter.IsZero() && !time.Now().Add(wait).Before(c.notAfter)
}

// readRequestBody reads all of the body into a slice of its own, so that every attempt sends the same bytes and nothing
// reads the caller's after the call: net/http may still be reading a body when RoundTrip has returned.
func readRequestBody(req *http.Request, limit int64) ([]byte, error) {
	if req.Body == nil || req.Body == http.NoBody {
		return nil, nil
	}
	length := req.ContentLength
	if length > limit {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrBodyTooLarge, length, limit)
	}
	if length > 0 {
		return readExactly(req.Body, length)
	}
	body, err := io.ReadAll(io.LimitReader(req.Body, max(limit, limit+1))) // limit may be the largest number
	if err != nil {
		return nil, fmt.Errorf("%w: body: %w", ErrInvalidMessage, err)
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrBodyTooLarge, limit)
	}
	return body, nil
}

func readExactly(r io.Reader, length int64) ([]byte, error) {
	body := make([]byte, length)
	n, err := io.ReadFull(r, body)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil, invalid("body", "has %d bytes, ContentLength says %d", n, length)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: body: %w", ErrInvalidMessage, err)
	}
	if n, _ := r.Read(make([]byte, 1)); n > 0 {
		return nil, invalid("body", "has more bytes than ContentLength says, %d", length)
	}
	return body, nil
}
