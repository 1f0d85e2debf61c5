package cursor

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	berlin := time.FixedZone("CEST", 2*60*60)
	for _, p := range []Position{
		{Order: "created_at", At: time.Date(2026, 11, 21, 20, 0, 0, 123456789, time.UTC), ID: "0199-a"},
		{Order: "next_attempt_at", Ascending: true, At: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), ID: "with space"},
		{Order: "x", At: time.Date(2026, 1, 1, 0, 0, 0, 0, berlin)},
	} {
		got, err := Decode(Encode(p))
		require.NoError(t, err)
		p.At = p.At.UTC()
		assert.Equal(t, p, got)
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	good := Encode(Position{Order: "created_at", At: time.Unix(0, 0), ID: "a"})
	for _, text := range []string{"", "!", "AAAA", good + "A", good[1:], good + "=", good + "\n"} {
		_, err := Decode(text)
		assert.ErrorIs(t, err, ErrMalformed, "%q", text)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Encode(Position{Order: "created_at", At: time.Unix(1, 5), ID: "0199"}))
	f.Add("")
	f.Add("MSBhIGEg")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Decode(text)
		if err == nil && Encode(p) != text {
			t.Fatalf("%q is not the text of %+v", text, p)
		}
	})
}
