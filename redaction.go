package hermes

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/hermeshttp/hermes/internal/redact"
)

func (o *outgoing) redactedURL() string { return redact.URL(o.Template.URL) }

func (o *outgoing) host() string { return strings.ToLower(o.Template.URL.Host) }

// errorText is err as it may be stored and shown: whatever of the message stands in it is taken out.
func (o *outgoing) errorText(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	secrets := o.secrets()
	if len(o.Body) <= len(text) { // a longer one cannot stand in it
		secrets = append(secrets, string(o.Body))
	}
	return redact.Text(text, secrets)
}

// secrets are the parts of a message, but for its body, that no text may show; what a signer added to it among them.
func (o *outgoing) secrets() []string {
	secrets := append(urlSecrets(o.url()), headerSecrets(o.Header)...)
	if o.sent == nil {
		return secrets
	}
	return append(append(secrets, urlSecrets(o.sent.URL)...), headerSecrets(o.sent.Header)...)
}

func urlSecrets(u *url.URL) []string {
	secrets := []string{u.RawQuery}
	for _, values := range u.Query() {
		secrets = append(secrets, values...)
	}
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		_, value, _ := strings.Cut(pair, "=")
		secrets = append(secrets, value)
	}
	if u.User != nil {
		password, _ := u.User.Password()
		secrets = append(secrets, u.User.String(), u.User.Username(), password, url.UserPassword("", password).String()[1:])
	}
	return secrets
}

func headerSecrets(header http.Header) []string {
	var secrets []string
	for name, values := range header {
		if isPublicHeader(name) {
			continue
		}
		for _, value := range values {
			_, credentials, _ := strings.Cut(value, " ") // of "Bearer …"
			secrets = append(secrets, value, credentials)
		}
	}
	return secrets
}

// isPublicHeader tells of headers whose values are words that an error may need.
func isPublicHeader(name string) bool {
	name = http.CanonicalHeaderKey(name)
	return strings.HasPrefix(name, "Accept") || strings.HasPrefix(name, "Content-") || name == "User-Agent"
}

// errorText is the text of an error that does not come from sending a message.
func errorText(err error) string { return redact.Text(err.Error(), nil) }

func panicText(p any) string { return redact.Text(fmt.Sprint(p), nil) }

func (c *Client) logAttempt(ctx context.Context, o *outgoing, r *result, number int) {
	if !c.logger.Enabled(ctx, slog.LevelDebug) {
		return
	}
	c.logger.LogAttrs(ctx, slog.LevelDebug, "hermes: attempt failed", slog.String("id", o.id),
		slog.String("method", o.method()), slog.String("url", o.redactedURL()), slog.Int("number", number),
		slog.Int("status", r.StatusCode), slog.String("kind", string(r.kind)), slog.String("error", o.errorText(r.err)))
}

func (c *Client) delivered(ctx context.Context, o *outgoing, r *result) {
	hook(c, ctx, c.hooks.Delivered, DeliveredInfo{MessageID: o.id, Host: o.Template.URL.Host, StatusCode: r.StatusCode,
		Attempts: r.Attempts, Retry: o.row != nil})
}

func (c *Client) saved(ctx context.Context, o *outgoing, r *result) {
	c.logger.LogAttrs(ctx, slog.LevelWarn, "hermes: message saved", slog.String("id", o.id),
		slog.String("method", o.method()), slog.String("url", o.redactedURL()), slog.Int("status", r.StatusCode),
		slog.String("kind", string(r.kind)), slog.String("outcome", r.Outcome.String()),
		slog.Int("attempts", r.Attempts), slog.Bool("retry", o.row != nil))
	hook(c, ctx, c.hooks.Saved, SavedInfo{MessageID: o.id, Host: o.host(), StatusCode: r.StatusCode, Kind: r.kind,
		Outcome: r.Outcome, Attempts: r.Attempts, Retry: o.row != nil})
}

func (c *Client) claimLost(ctx context.Context, id string) {
	c.logger.LogAttrs(ctx, slog.LevelWarn, "hermes: claim lost", slog.String("id", id))
	hook(c, ctx, c.hooks.ClaimLost, ClaimLostInfo{MessageID: id})
}

func (c *Client) unreadable(ctx context.Context, id string, err error) {
	c.logger.LogAttrs(ctx, slog.LevelError, "hermes: row postponed, as it cannot be read", slog.String("id", id),
		slog.String("error", errorText(err)))
	hook(c, ctx, c.hooks.Unreadable, UnreadableInfo{MessageID: id, Err: err})
}

func (c *Client) retired(ctx context.Context, msg *FailedMessage) {
	c.logger.LogAttrs(ctx, slog.LevelWarn, "hermes: row will not be retried any more", slog.Any("message", msg))
}
