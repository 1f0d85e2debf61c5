package retryafter

import (
	"math"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestParse(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 29, 0, 30, 0, 0, time.UTC) // an hour before Europe's clocks change
	in := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for _, test := range []struct {
		name   string
		values []string
		date   string
		want   time.Duration
		ok     bool
	}{
		{name: "absent"},
		{name: "zero", values: []string{"0"}, want: 0, ok: true},
		{name: "seconds", values: []string{"120"}, want: 2 * time.Minute, ok: true},
		{name: "leading zeros", values: []string{"007"}, want: 7 * time.Second, ok: true},
		{name: "spaces around", values: []string{" \t5 "}, want: 5 * time.Second, ok: true},
		{name: "negative", values: []string{"-1"}},
		{name: "signed", values: []string{"+1"}},
		{name: "float", values: []string{"1.5"}},
		{name: "exponent", values: []string{"1e30"}},
		{name: "duration", values: []string{"5s"}},
		{name: "empty", values: []string{""}},
		{name: "a Unix time", values: []string{"1774744200"}, want: 1774744200 * time.Second, ok: true},
		{name: "longest that fits", values: []string{"9223372036"}, want: 9223372036 * time.Second, ok: true},
		{name: "a second longer", values: []string{"9223372037"}, want: math.MaxInt64, ok: true},
		{name: "past int64", values: []string{"99999999999999999999"}, want: math.MaxInt64, ok: true},
		{name: "IMF-fixdate", values: []string{in(90 * time.Second)}, want: 90 * time.Second, ok: true},
		{name: "RFC 850", values: []string{now.Add(time.Minute).Format(time.RFC850[:len(time.RFC850)-3] + "GMT")}, want: time.Minute, ok: true},
		{name: "asctime", values: []string{now.Add(time.Minute).Format(time.ANSIC)}, want: time.Minute, ok: true},
		{name: "past date", values: []string{in(-time.Minute)}},
		{name: "this moment", values: []string{in(0)}},
		{name: "year 9999", values: []string{"Fri, 31 Dec 9999 23:59:59 GMT"}, want: math.MaxInt64, ok: true},
		{name: "relative to Date", values: []string{in(time.Hour)}, date: in(59 * time.Minute), want: time.Minute, ok: true},
		{name: "a Date that is garbage", values: []string{in(time.Hour)}, date: "yesterday", want: time.Hour, ok: true},
		{name: "twice: the longer", values: []string{"3", "9"}, want: 9 * time.Second, ok: true},
		{name: "twice: the longer first", values: []string{"9", "3"}, want: 9 * time.Second, ok: true},
		{name: "garbage beside a value", values: []string{"soon", "3"}, want: 3 * time.Second, ok: true},
		{name: "a list", values: []string{"3, 9"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			header := http.Header{}
			if test.values != nil {
				header["Retry-After"] = test.values
			}
			if test.date != "" {
				header.Set("Date", test.date)
			}
			got, ok := Parse(header, now)
			assert.Equal(t, test.ok, ok)
			assert.Equal(t, test.want, got)
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, value := range []string{"0", "-1", "1e30", "1.5", "1774744200", "Fri, 31 Dec 9999 23:59:59 GMT", "99999999999999999999"} {
		f.Add(value, "Sun, 29 Mar 2026 00:30:00 GMT")
	}
	f.Fuzz(func(t *testing.T, value, date string) {
		wait, ok := Parse(http.Header{"Retry-After": {value}, "Date": {date}}, time.Now())
		if wait < 0 {
			t.Fatalf("a negative wait: %v", wait)
		}
		if !ok && wait != 0 {
			t.Fatalf("no wait, yet %v", wait)
		}
	})
}
