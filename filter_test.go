package hermes_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

// rowsFor are rows named by single letters, for filters to tell apart.
func rowsFor(t *testing.T, c *hermes.Client) {
	t.Helper()
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for id, edit := range map[string]func(*hermes.FailedMessage){
		"a": func(m *hermes.FailedMessage) {
			m.URL, m.Host = "https://api.example.com/Pay?x=100%25_off", "api.example.com"
			m.StatusCode, m.FailureKind = 500, hermes.KindStatus
			m.Metadata = map[string]string{"tenant": "acme", "n": "1"}
			m.CreatedAt, m.UpdatedAt = noon, noon.Add(time.Hour)
		},
		"b": func(m *hermes.FailedMessage) {
			m.URL, m.Host = "https://api.example.com:8443/refund", "api.example.com:8443"
			m.StatusCode, m.FailureKind, m.Method = 404, hermes.KindStatus, "DELETE"
			m.Retryable, m.NextAttemptAt = false, nil
			m.Metadata = map[string]string{"tenant": "Acme"}
			m.CreatedAt, m.UpdatedAt = noon.Add(time.Microsecond), noon
		},
		"c": func(m *hermes.FailedMessage) {
			m.URL, m.Host = `http://c/back\slash%5C`, "c"
			m.StatusCode, m.FailureKind, m.LastError = 0, hermes.KindConnect, `dial tcp: connection REFUSED 50% "a_b" \`
			m.Metadata = map[string]string{"tenant": `we"ird\: ,{}`, "": "empty key", "käse": "\u2028<&>", "dot.ted": "[0]"}
			m.CreatedAt, m.UpdatedAt = noon.Add(-time.Hour), noon.Add(-time.Hour)
		},
		"d": func(m *hermes.FailedMessage) {
			m.URL, m.Host, m.Method = "odd:opaque/a%00b", "", "cUSTOM"
			m.StatusCode, m.FailureKind = 302, hermes.KindRedirect
			m.Retryable, m.NextAttemptAt = false, nil
			m.CreatedAt, m.UpdatedAt = noon.Add(time.Hour), noon.Add(2*time.Hour)
		},
		"e": func(m *hermes.FailedMessage) { // never attempted
			m.URL, m.Host = "https://later.example.com/", "later.example.com"
			m.StatusCode, m.Attempts, m.FailureKind = 0, 0, ""
			m.CreatedAt, m.UpdatedAt = time.Now().Add(-2*time.Hour), time.Now()
		},
	} {
		saved(t, c, edit, func(m *hermes.FailedMessage) { m.ID = id })
	}
}

func TestFilters(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	zone := time.FixedZone("far", 13*3600)
	manyIDs := slices.Repeat([]string{"none", `"quoted\`, "ü"}, 33_333)
	manyCodes := make([]int, 40_000)
	for i := range manyCodes {
		manyCodes[i] = 400 + i
	}
	codes := func(codes ...int) hermes.Filter { return hermes.Filter{StatusCodes: codes} }
	type filter = hermes.Filter
	cases := []struct {
		f    hermes.Filter
		want string
	}{
		{filter{}, "abcde"},
		{hermes.Everything(), "abcde"},

		{filter{IDs: []string{"a", "c", "c"}}, "ac"},
		{filter{IDs: []string{"A"}}, ""},
		{filter{IDs: []string{}}, ""},
		{filter{IDs: []string{"\x00", "\xff"}}, ""},
		{filter{IDs: []string{"\x00", "b"}}, "b"},
		{filter{IDs: append(manyIDs, "e")}, "e"},

		{filter{CreatedAfter: noon}, "abde"},
		{filter{CreatedAfter: noon.Add(time.Microsecond)}, "bde"},
		{filter{CreatedBefore: noon}, "c"},
		{filter{CreatedBefore: noon.Add(time.Microsecond)}, "ac"},
		{filter{CreatedAfter: noon.In(zone), CreatedBefore: noon.Add(time.Hour).In(zone)}, "ab"},
		{filter{UpdatedAfter: noon}, "abde"},
		{filter{UpdatedBefore: noon.Add(time.Microsecond)}, "bc"},
		{filter{UpdatedAfter: noon.Add(time.Hour).In(zone), UpdatedBefore: noon.Add(2 * time.Hour)}, "a"},
		{filter{CreatedBefore: beyond()}, "abcde"},
		{filter{CreatedAfter: beyond()}, ""},
		{filter{CreatedAfter: time.Unix(-1<<55, 0), UpdatedBefore: time.Unix(1<<55, 0)}, "abcde"},
		{filter{CreatedBefore: time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC)}, ""},

		{filter{MinAge: time.Hour}, "abcde"},
		{filter{MinAge: 3 * time.Hour}, "abcd"},
		{filter{MinAge: -time.Hour}, "abcde"},
		{filter{MinAge: math.MaxInt64}, ""},
		{hermes.OlderThan(3 * time.Hour), "abcd"},
		{hermes.MoreThanOneDayOld(), "abcd"},

		{filter{Host: "api.example.com"}, "a"},
		{filter{Host: "API.Example.COM:8443"}, "b"},
		{filter{Host: "api%"}, ""},
		{filter{Host: "c\x00"}, ""},
		{filter{Method: "delete"}, "b"},
		{filter{Method: "CUSTOM"}, "d"},
		{filter{Method: "\xff"}, ""},

		{filter{FailureKinds: []hermes.FailureKind{hermes.KindStatus}}, "ab"},
		{filter{FailureKinds: []hermes.FailureKind{hermes.KindConnect, ""}}, "ce"},
		{filter{FailureKinds: []hermes.FailureKind{}}, ""},
		{filter{FailureKinds: []hermes.FailureKind{"\x00", "STATUS"}}, ""},

		{codes(500, 404), "ab"},
		{codes(0), "c"},
		{codes(), "abcde"},
		{codes([]int{}...), ""},
		{filter{StatusCodes: []int{}}, ""},
		{filter{StatusRanges: []hermes.StatusRange{}}, ""},
		{filter{StatusCodes: []int{}, StatusRanges: []hermes.StatusRange{{Min: 300, Max: 404}}}, "bd"},
		{filter{StatusCodes: []int{500}, StatusRanges: []hermes.StatusRange{{Min: 300, Max: 303}, {Min: 1, Max: 2}}}, "ad"},
		{codes(math.MaxInt, math.MinInt, 1<<31, 500), "a"},
		{codes(manyCodes...), "ab"},
		{hermes.StatusBetween(404, 500), "ab"},
		{hermes.StatusBetween(405, 499), ""},
		{hermes.StatusBetween(500, 404), ""},
		{hermes.StatusBetween(500, math.MaxInt), "a"},
		{hermes.StatusBetween(math.MinInt, 0), "c"},
		{hermes.ConnectionErrors(), "c"},
		{hermes.RedirectedMessages(), "d"},
		{hermes.InvalidMessages(), "bd"},
		{hermes.ValidMessages(), "ace"},
		{filter{States: []hermes.State{}}, ""},
		{filter{States: []hermes.State{"unknown", ""}}, ""},
		{filter{States: hermes.States()}, "abcde"},

		{filter{Metadata: map[string]string{"tenant": "acme"}}, "a"},
		{filter{Metadata: map[string]string{"tenant": "acme", "n": "1"}}, "a"},
		{filter{Metadata: map[string]string{"tenant": "acme", "n": "2"}}, ""},
		{filter{Metadata: map[string]string{"tenant": `we"ird\: ,{}`}}, "c"},
		{filter{Metadata: map[string]string{"": "empty key"}}, "c"},
		{filter{Metadata: map[string]string{"käse": "\u2028<&>", "dot.ted": "[0]"}}, "c"},
		{filter{Metadata: map[string]string{"dot": ""}}, ""},
		{filter{Metadata: map[string]string{"0": ""}}, ""},
		{filter{Metadata: map[string]string{"$.tenant": "acme"}}, ""},
		{filter{Metadata: map[string]string{"tenant": "\x00"}}, ""},
		{filter{Metadata: map[string]string{"\xff": "acme"}}, ""},
		{filter{Metadata: map[string]string{}}, "abcde"},

		{filter{Host: "api.example.com", Method: "post", StatusCodes: []int{500}, Text: "pay", MinAge: time.Hour}, "a"},
		{filter{Host: "api.example.com", Method: "get"}, ""},
	}
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		rowsFor(t, c)
		for i, test := range cases {
			name := fmt.Sprintf("case %d: %+v", i, test.f)
			assertFilter(t, c, test.f, test.want, name[:min(len(name), 800)])
		}
	})
}

func assertFilter(t *testing.T, c *hermes.Client, f hermes.Filter, want, name string) {
	t.Helper()
	page, err := c.Monitor().List(context.Background(), f, hermes.ListOptions{})
	if !assert.NoError(t, err, name) {
		return
	}
	ids := idsOf(page.Messages)
	slices.Sort(ids)
	assert.Equal(t, want, strings.Join(ids, ""), name)
	n, err := c.Monitor().Count(context.Background(), f)
	assert.NoError(t, err, name)
	assert.EqualValues(t, len(want), n, name)
}

func TestFiltersByPatternAndText(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		rowsFor(t, c)
		for pattern, want := range map[string]string{
			"%":                            "abcde",
			"https://%":                    "abe",
			"HTTPS://API.example.com%":     "ab",
			"%/pay%":                       "a",
			"pay":                          "",
			"http_://%":                    "abe",
			`%100\%25\_off`:                "a",
			`%100_25_off`:                  "a",
			`%100\_25%`:                    "",
			`%back\\slash%`:                "c",
			`%\`:                           "",
			`%\\`:                          "",
			`%\\\`:                         "",
			`%5\C`:                         "c",
			"%\x00%":                       "",
			"\xff%":                        "",
			"odd:opaque/%":                 "d",
			"https://later.example.com_":   "e",
			"https://later.example.com/_":  "",
			"[a-z]%":                       "",
			strings.Repeat("%", 200) + "y": "",
		} {
			assertFilter(t, c, hermes.Filter{URLLike: pattern}, want, fmt.Sprintf("like %q", pattern))
		}
		for text, want := range map[string]string{
			"example":      "abe",
			"EXAMPLE.com":  "abe",
			"/PAY?":        "a",
			"refused":      "c",
			"%":            "acd",
			"50%":          "c",
			"_":            "ac",
			`\`:            "c",
			`"a_b" \`:      "c",
			"a%b":          "",
			"?":            "a",
			"'":            "",
			"@x":           "",
			"\x00":         "",
			"a\x00":        "",
			"\xff":         "",
			"%00":          "d",
			"example.com/": "ae",
		} {
			assertFilter(t, c, hermes.Filter{Text: text}, want, fmt.Sprintf("text %q", text))
		}
	})
}

// TestAFilterForReschedulingAndGathering works in their statements too.
func TestAFilterForReschedulingAndGathering(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		rowsFor(t, c)
		f := hermes.Filter{
			IDs: []string{"a", "b", "c"}, CreatedAfter: time.Unix(1, 0), CreatedBefore: time.Now(), UpdatedAfter: time.Unix(1, 0),
			UpdatedBefore: time.Now(), MinAge: time.Second, URLLike: "%api%", Host: "api.example.com", Method: "post", Text: "pay",
			StatusCodes: []int{500}, StatusRanges: []hermes.StatusRange{{Min: 500, Max: 599}}, States: hermes.States(),
			FailureKinds: []hermes.FailureKind{hermes.KindStatus}, Metadata: map[string]string{"tenant": "acme", "n": "1"},
		}
		n, err := c.Reschedule(context.Background(), f, time.Time{})
		require.NoError(t, err)
		assert.EqualValues(t, 1, n)
		f.UpdatedBefore = time.Time{}
		assert.Equal(t, []string{"a"}, idsOf(gather(t, c, hermes.GatherOptions{Filter: f})))
	})
}

// TestStatesAreExclusiveAndTotal: of rows in all constellations, each has one state, the same by Filter and State.
func TestStatesAreExclusiveAndTotal(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		times := map[string]*time.Time{"nil": nil, "past": ptr(ago(time.Hour)), "future": ptr(ago(-time.Hour))}
		seen := map[hermes.State]int{}
		for _, retryable := range []bool{true, false} {
			for next, nextAt := range times {
				for after, notAfter := range times {
					for until, claimedUntil := range times {
						m := saved(t, c, func(m *hermes.FailedMessage) {
							m.ID = fmt.Sprintf("%v-%s-%s-%s", retryable, next, after, until)
							m.Retryable, m.NextAttemptAt, m.NotAfter = retryable, nextAt, notAfter
						})
						if claimedUntil != nil {
							set(t, db, m.ID, "claimed_until", *claimedUntil)
							m = row(t, c, m.ID)
						}
						var matching []hermes.State
						for _, state := range hermes.States() {
							if count(t, c, hermes.Filter{IDs: []string{m.ID}, States: []hermes.State{state}}) == 1 {
								matching = append(matching, state)
							}
						}
						assert.Equal(t, []hermes.State{m.State()}, matching, m.ID)
						seen[m.State()]++
						gathered := len(gather(t, c, hermes.GatherOptions{Filter: hermes.Filter{IDs: []string{m.ID}}}))
						assert.Equal(t, m.State() == hermes.StateDue, gathered == 1, m.ID)
					}
				}
			}
		}
		assert.Equal(t, map[hermes.State]int{hermes.StateClaimed: 18, hermes.StateInvalid: 18, hermes.StateExhausted: 10,
			hermes.StateWaiting: 4, hermes.StateDue: 4}, seen)
	})
}

func TestFilterBySender(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		for _, sender := range []string{"", "billing", "billing", "shipping"} {
			saved(t, c, func(m *hermes.FailedMessage) { m.Sender = sender })
		}
		for want, senders := range map[int64][]string{4: nil, 0: {}, 1: {""}, 2: {"billing"}, 3: {"shipping", "billing", "none"}} {
			assert.Equal(t, want, count(t, c, hermes.Filter{Senders: senders}), "%q", senders)
		}
	})
}
