// Package retryafter reads the Retry-After header of RFC 9110 section 10.2.3.
package retryafter

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Parse tells how long the server asks to wait: delay-seconds, or any of the three date forms of HTTP, which are taken
// relative to the response's own Date, so that neither side's clock matters; without one, relative to now. Of several
// values the longest wait counts. What is not of these forms, and a date in the past, asks for nothing: ok is false.
// A number too large for a Duration is the longest Duration; capping it is the caller's.
func Parse(header http.Header, now time.Time) (wait time.Duration, ok bool) {
	for _, value := range header.Values("Retry-After") {
		one, valid := parseOne(strings.Trim(value, " \t"), header, now)
		if valid && (!ok || one > wait) {
			wait, ok = one, true
		}
	}
	return wait, ok
}

func parseOne(value string, header http.Header, now time.Time) (time.Duration, bool) {
	if isDigits(value) {
		return seconds(value), true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		now = date
	}
	wait := at.Sub(now) // saturates
	return wait, wait > 0
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

func seconds(digits string) time.Duration {
	const longest = math.MaxInt64 / int64(time.Second)
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > longest {
		return math.MaxInt64
	}
	return time.Duration(n) * time.Second
}
