// Package headertext keeps an http.Header as bytes: the lines of an HTTP/1.1 header, which a person can read in the
// database, and from which the same map comes back, value for value and byte for byte.
package headertext

import (
	"bytes"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// ErrMalformed is returned for bytes that Encode did not make.
var ErrMalformed = errors.New("malformed header")

// Encode writes one line "Name: value" per value, names in order. A name without values, with which a caller
// suppresses a header that net/http would add itself, is a line without a colon.
//
// It has no escapes: names must be tokens and values free of CR and LF (RFC 9110 section 5), which Valid checks.
func Encode(header http.Header) []byte {
	var out []byte
	for _, name := range slices.Sorted(maps.Keys(header)) {
		if len(header[name]) == 0 {
			out = append(out, name...)
			out = append(out, "\r\n"...)
		}
		for _, value := range header[name] {
			out = append(out, name...)
			out = append(out, ": "...)
			out = append(out, value...)
			out = append(out, "\r\n"...)
		}
	}
	return out
}

// Decode reads what Encode wrote.
func Decode(text []byte) (http.Header, error) {
	header := http.Header{}
	for len(text) > 0 {
		line, rest, found := bytes.Cut(text, []byte("\r\n"))
		if !found {
			return nil, ErrMalformed
		}
		text = rest
		name, value, hasValue := strings.Cut(string(line), ":")
		if !ValidName(name) || !hasValue && header[name] != nil {
			return nil, ErrMalformed
		}
		if !hasValue {
			header[name] = nil
			continue
		}
		value, spaced := strings.CutPrefix(value, " ")
		if !spaced || !ValidValue(value) {
			return nil, ErrMalformed
		}
		header[name] = append(header[name], value)
	}
	return header, nil
}

// ValidName tells whether name is a token of RFC 9110 section 5.6.2.
func ValidName(name string) bool {
	for i := range len(name) {
		if !isToken[name[i]] {
			return false
		}
	}
	return name != ""
}

// ValidValue tells whether value may stand in a header field: no control character but the tab. Bytes above 0x7f,
// the obs-text of RFC 9110 section 5.5, are allowed and kept.
func ValidValue(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// isToken has the characters of a token, RFC 9110 section 5.6.2.
var isToken = func() (table [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		table[c] = true
	}
	return table
}()
