package headertext

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for name, header := range map[string]http.Header{
		"empty":          {},
		"repeated":       {"Accept": {"text/html", "", "text/html"}},
		"obs-text":       {"X-Name": {"J\xfcrgen \xff\x80", "Jürgen"}},
		"spaces kept":    {"X-Pad": {"  two before, one after ", "\ttab"}},
		"not canonical":  {"x-lower": {"a"}, "X-Lower": {"b"}},
		"suppressed":     {"User-Agent": nil},
		"colon in value": {"X-Url": {"http://host:1/: "}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Decode(Encode(header))
			require.NoError(t, err)
			assert.Equal(t, header, got)
		})
	}
}

func TestDecodeRefusesWhatEncodeDidNotMake(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"A: b", ": b\r\n", "A B: c\r\n", "A:b\r\n", "A: b\nC: d\r\n", "\x01sealed\r\n", "\r\n"} {
		_, err := Decode([]byte(text))
		assert.ErrorIs(t, err, ErrMalformed, "%q", text)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("Accept: a\r\nAccept: b\r\nUser-Agent\r\n"))
	f.Add([]byte("X: \xff\r\n"))
	f.Add([]byte("A: b"))
	f.Fuzz(func(t *testing.T, text []byte) {
		header, err := Decode(text)
		if err != nil {
			return
		}
		again, err := Decode(Encode(header))
		require.NoError(t, err)
		require.Equal(t, header, again)
	})
}
