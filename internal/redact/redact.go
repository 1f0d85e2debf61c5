// Package redact takes secrets out of what people get to see: a URL's userinfo and query, and whatever of a message
// stands in the text of an error.
package redact

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// Mark stands where something was taken out. It can stand in a URL unescaped.
const Mark = "redacted"

const (
	shortestSecret = 4    // "1" as a header's value is no secret, and would take every 1 out of a text
	longestText    = 1024 // bytes of an error's text; what is longer is cut
)

// URL returns u without its userinfo, query and fragment; that there was a userinfo or a query can still be seen.
func URL(u *url.URL) string {
	if u == nil {
		return ""
	}
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	if u.Opaque != "" {
		shown.Opaque = u.Opaque[strings.LastIndexByte(u.Opaque, '@')+1:]
	}
	if u.User != nil {
		shown.User = url.User(Mark)
	}
	if u.RawQuery != "" {
		shown.RawQuery = Mark
	}
	return shown.String()
}

// Text returns text as it may be stored and shown: without the secrets, without the userinfo and query of any URL in
// it, as valid UTF-8 without NUL (PostgreSQL's text takes neither), and at most 1024 bytes long.
func Text(text string, secrets []string) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
	longestFirst := func(a, b string) int { return cmp.Compare(len(b), len(a)) }
	for _, secret := range slices.SortedFunc(slices.Values(secrets), longestFirst) {
		if len(secret) >= shortestSecret {
			text = strings.ReplaceAll(text, secret, Mark)
		}
	}
	text = urls(text)
	if len(text) <= longestText {
		return text
	}
	cut := longestText
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut]
}

// urls redacts whatever looks like a URL within text, also one that no parser would take.
func urls(text string) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(text, "://")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		out.WriteString("://")
		end := strings.IndexAny(after, " \t\r\n\"'`<>")
		if end < 0 {
			end = len(after)
		}
		out.WriteString(authorityAndPath(after[:end]))
		text = after[end:]
	}
}

func authorityAndPath(s string) string {
	s, query, hasQuery := cutAny(s, "?#")
	authority := s
	if slash := strings.IndexByte(s, '/'); slash >= 0 {
		authority = s[:slash]
	}
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		s = Mark + s[at:]
	}
	if hasQuery && query != "" {
		s += "?" + Mark
	}
	return s
}

func cutAny(s, chars string) (before, after string, found bool) {
	if i := strings.IndexAny(s, chars); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}
