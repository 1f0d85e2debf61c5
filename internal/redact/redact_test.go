package redact

import (
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestURL(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"https://api.example.com/v1/pay":               "https://api.example.com/v1/pay",
		"https://user:pass@api.example.com:8443/a?b=c": "https://redacted@api.example.com:8443/a?redacted",
		"https://user@api.example.com/#frag":           "https://redacted@api.example.com/",
		"http://h/a%2Fb?":                              "http://h/a%2Fb",
		"sqs:user:pass@queue":                          "sqs:queue",
	} {
		u, err := url.Parse(in)
		require.NoError(t, err)
		assert.Equal(t, want, URL(u))
	}
	assert.Empty(t, URL(nil))
}

func TestText(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, in, want string }{
		{"plain", "connection refused", "connection refused"},
		{"url error", `Get "https://u:p@h/a?token=1": EOF`, `Get "https://redacted@h/a?redacted": EOF`},
		{"unquoted", "dial https://h/a?k=v: refused", "dial https://h/a?redacted refused"},
		{"fragment", "see https://h/a#b now", "see https://h/a?redacted now"},
		{"two", "http://a?b http://c@d", "http://a?redacted http://redacted@d"},
		{"at in password", "http://u:p@ss@h/", "http://redacted@h/"},
		{"known secrets, the longest first", "got Bearer abcdef123 and abcdef", "got redacted and redacted"},
		{"invalid UTF-8 and NUL", "a\xffb\x00c", "a\uFFFDb\uFFFDc"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, test.want, Text(test.in, []string{"abcdef", "Bearer abcdef123", "", "1"}))
		})
	}
}

func TestTextIsBounded(t *testing.T) {
	t.Parallel()
	got := Text(strings.Repeat("ü", longestText), nil)
	assert.Len(t, got, longestText)
	assert.True(t, utf8.ValidString(got))
	assert.Len(t, Text("x"+strings.Repeat("ü", longestText), nil), longestText-1)
}

func FuzzText(f *testing.F) {
	f.Add("Get \"https://u:canary@h/a?token=canary\": EOF", "canary")
	f.Add("http://a?b://c@d", "b://c")
	f.Add("\xff\x00://", "")
	f.Fuzz(func(t *testing.T, text, secret string) {
		got := Text(text, []string{secret})
		if !utf8.ValidString(got) || strings.ContainsRune(got, 0) || len(got) > longestText {
			t.Fatalf("not fit to store: %q", got)
		}
		if len(secret) >= shortestSecret && utf8.ValidString(secret) && strings.Contains(got, secret) &&
			!strings.Contains(Mark, secret) && !couldArise(secret) {
			t.Fatalf("%q still holds %q", got, secret)
		}
	})
}

// couldArise: such a secret can come into being anew around a mark, "aredacted" from "a" and a secret.
func couldArise(secret string) bool {
	for i := 1; i <= len(Mark); i++ {
		if strings.Contains(secret, Mark[:i]) || strings.Contains(secret, Mark[len(Mark)-i:]) {
			return true
		}
	}
	return strings.ContainsAny(secret, "?@\uFFFD")
}

func FuzzURL(f *testing.F) {
	f.Add("https://user:canary@h/a?b=canary#canary")
	f.Add("x:y@z?q")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := url.Parse(text)
		if err != nil {
			return
		}
		got := URL(u)
		if query := u.RawQuery; len(query) > len(Mark) && strings.Contains(got, "?"+query) {
			t.Fatalf("%q still holds the query %q", got, query)
		}
		if u.User != nil && len(u.User.String()) > len(Mark) && strings.Contains(got, "//"+u.User.String()+"@") {
			t.Fatalf("%q still holds the userinfo", got)
		}
	})
}
