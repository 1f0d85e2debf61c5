// Package cursor makes a place in an ordered list a text that can be put into a URL, and back.
package cursor

import (
	"encoding/base64"
	"errors"
	"strings"
	"time"
)

// ErrMalformed is returned for a text that Encode did not make.
var ErrMalformed = errors.New("malformed cursor")

// Position is the last row of a page: whatever the list is ordered by, and what makes the order total.
type Position struct {
	Order     string // the name of the order; letters and underscores
	Ascending bool
	At        time.Time // the row's value of the order's column, in UTC
	ID        string    // printable ASCII
}

const version = "1"

// Encode returns the text of p.
func Encode(p Position) string {
	direction := "d"
	if p.Ascending {
		direction = "a"
	}
	parts := []string{version, p.Order, direction, p.At.UTC().Format(time.RFC3339Nano), p.ID}
	return base64.RawURLEncoding.EncodeToString([]byte(strings.Join(parts, " ")))
}

// Decode reads what Encode wrote, and only that: of one position there is one text.
func Decode(text string) (Position, error) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return Position{}, ErrMalformed
	}
	parts := strings.SplitN(string(raw), " ", 5)
	if len(parts) != 5 {
		return Position{}, ErrMalformed
	}
	at, err := time.Parse(time.RFC3339Nano, parts[3])
	if err != nil {
		return Position{}, ErrMalformed
	}
	p := Position{Order: parts[1], Ascending: parts[2] == "a", At: at.UTC(), ID: parts[4]}
	if !isPrintable(p.ID) || Encode(p) != text {
		return Position{}, ErrMalformed
	}
	return p, nil
}

// isPrintable keeps out what a database would refuse as text.
func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
