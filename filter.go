package hermes

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Filter chooses rows. Its zero value has no condition; conditions are joined by AND. A slice that is empty but not nil
// matches nothing. Times are from After, inclusive, to Before, exclusive. Where case does not matter, it does not for
// ASCII letters; of others the databases think differently.
type Filter struct {
	IDs                         []string
	Senders                     []string // WithSender of the clients that saved them
	CreatedAfter, CreatedBefore time.Time
	UpdatedAfter, UpdatedBefore time.Time
	MinAge                      time.Duration // since CreatedAt, by the database's clock, when the query runs; 0: any

	URLLike string // SQL LIKE pattern of the URL as it is stored, whatever the case; a backslash escapes
	Host    string // as in FailedMessage.Host, whatever the case
	Method  string // in any case
	Text    string // stands in URL or last error, literally, whatever the case

	StatusCodes  []int         // of the last attempt; ORed with StatusRanges. 0: no answer
	StatusRanges []StatusRange // a row that was never attempted has no status and matches neither
	States       []State       // by the database's clock
	FailureKinds []FailureKind
	Metadata     map[string]string // each label has this value

	everything bool
}

// StatusRange is a range of statuses, both ends inclusive.
type StatusRange struct{ Min, Max int }

// Everything matches every row, and says so: Purge and Reschedule refuse a filter that has no condition by oversight.
func Everything() Filter { return Filter{everything: true} }

// MoreThanOneDayOld matches what was saved more than 24 hours ago.
func MoreThanOneDayOld() Filter { return OlderThan(24 * time.Hour) }

// OlderThan matches what was saved at least d ago.
func OlderThan(d time.Duration) Filter { return Filter{MinAge: d} }

// RedirectedMessages matches what failed with a redirect that was not followed.
func RedirectedMessages() Filter { return StatusBetween(300, 399) }

// InvalidMessages matches what cannot succeed as it is: by the default policy, 3xx and 4xx.
func InvalidMessages() Filter { return Filter{States: []State{StateInvalid}} }

// ValidMessages matches what may still succeed: by the default policy, status 0 and 5xx. Exhausted rows are among them.
func ValidMessages() Filter {
	return Filter{States: []State{StateDue, StateWaiting, StateClaimed, StateExhausted}}
}

// ConnectionErrors matches what got no answer to its last attempt.
func ConnectionErrors() Filter { return StatusBetween(0, 0) }

// StatusBetween matches what last failed with a status from lo to hi, inclusive.
func StatusBetween(lo, hi int) Filter { return Filter{StatusRanges: []StatusRange{{lo, hi}}} }

func (f Filter) isUnbounded() bool {
	if len(f.Metadata) == 0 {
		f.Metadata = nil
	}
	f.MinAge = max(f.MinAge, 0)
	return reflect.ValueOf(f).IsZero()
}

// conditions are f's, in SQL; at least one.
func (s *store) conditions(f Filter) []expr {
	all := []expr{{text: "TRUE"}}
	add := func(parts ...any) { all = append(all, sql(parts...)) }
	if f.IDs != nil {
		all = append(all, in(s, "id", f.IDs))
	}
	if f.Senders != nil {
		all = append(all, in(s, "sender", f.Senders))
	}
	for _, bound := range []struct {
		column, operator string
		at               time.Time
	}{
		{"created_at", ">=", f.CreatedAfter}, {"created_at", "<", f.CreatedBefore},
		{"updated_at", ">=", f.UpdatedAfter}, {"updated_at", "<", f.UpdatedBefore},
	} {
		if !bound.at.IsZero() {
			add(bound.column+" "+bound.operator+" ", s.time(bound.at))
		}
	}
	if f.MinAge > 0 {
		add("created_at <= ", s.nowPlus(-f.MinAge))
	}
	all = append(all, s.textConditions(f)...)
	if f.StatusCodes != nil || f.StatusRanges != nil {
		all = append(all, s.status(f))
	}
	if f.States != nil {
		all = append(all, s.anyState(f.States))
	}
	if f.FailureKinds != nil {
		all = append(all, in(s, "failure_kind", f.FailureKinds))
	}
	return all
}

func (s *store) textConditions(f Filter) []expr {
	var all []expr
	add := func(condition string, texts ...string) {
		e := expr{text: condition}
		for _, text := range texts {
			if !isStorable(text) { // no row has it; PostgreSQL would refuse it, and SQLite end a pattern at its NUL
				e = expr{text: "FALSE"}
				break
			}
			e.args = append(e.args, text)
		}
		all = append(all, e)
	}
	if f.URLLike != "" {
		add(s.dialect.Like("url"), closedPattern(f.URLLike))
	}
	if f.Host != "" {
		add("host = ?", strings.ToLower(f.Host))
	}
	if f.Method != "" {
		add("upper(method) = ?", strings.ToUpper(f.Method))
	}
	if f.Text != "" {
		add("("+s.dialect.Contains("url")+" OR "+s.dialect.Contains("last_error")+")", f.Text, f.Text)
	}
	for key, value := range f.Metadata {
		add("("+s.dialect.Holds("metadata")+" OR "+s.dialect.Holds("metadata")+")", labelText("{", key, value), labelText(",", key, value))
	}
	return all
}

// labelText is how a label begins in the JSON object that metadata are stored as: with a quote that opens a name, which
// within a text would be escaped. A row's text need not be read as JSON then, so that one that is malformed fails no query.
func labelText(before, key, value string) string {
	if !isStorable(key) || !isStorable(value) {
		return "\x00" // encoded, it would be another
	}
	return before + jsonText(key) + ":" + jsonText(value)
}

// closedPattern doubles an escape character at the end, where it would escape nothing and PostgreSQL fails.
func closedPattern(pattern string) string {
	trailing := len(pattern) - len(strings.TrimRight(pattern, `\`))
	return pattern + strings.Repeat(`\`, trailing%2)
}

// in is the condition that column is one of values: one argument, however many they are.
func in[T ~string](s *store, column string, values []T) expr {
	storable := slices.DeleteFunc(slices.Clone(values), func(value T) bool { return !isStorable(string(value)) })
	if len(storable) == 0 {
		return expr{text: "FALSE"}
	}
	return expr{s.dialect.InJSON(column), []any{jsonText(storable)}}
}

func (s *store) status(f Filter) expr {
	any := []expr{{text: "FALSE"}}
	codes := make([]string, len(f.StatusCodes))
	for i, code := range f.StatusCodes {
		codes[i] = strconv.Itoa(code)
	}
	any = append(any, in(s, "CAST(status_code AS text)", codes))
	for _, r := range f.StatusRanges { // the column's type is too narrow for an int that ends a range
		any = append(any, sql("status_code BETWEEN CAST(", arg(r.Min), " AS bigint) AND CAST(", arg(r.Max), " AS bigint)"))
	}
	return sql("attempts > 0 AND (", list(any, " OR "), ")")
}

// anyState is FailedMessage.State in SQL.
func (s *store) anyState(states []State) expr {
	any := []expr{{text: "FALSE"}}
	isClaimed := sql("claimed_until > ", s.now())
	isOver := sql("(next_attempt_at IS NULL OR not_after IS NOT NULL AND not_after <= ", s.now(), ")")
	isFree := sql(s.unclaimed(), " AND ")
	isOpen := sql(isFree, "retryable AND NOT ", isOver, " AND ")
	for _, state := range states {
		switch state {
		case StateClaimed:
			any = append(any, isClaimed)
		case StateInvalid:
			any = append(any, sql(isFree, "NOT retryable"))
		case StateExhausted:
			any = append(any, sql(isFree, "retryable AND ", isOver))
		case StateWaiting:
			any = append(any, sql(isOpen, "next_attempt_at > ", s.now()))
		case StateDue:
			any = append(any, sql(isOpen, "next_attempt_at <= ", s.now()))
		}
	}
	return sql("(", list(any, " OR "), ")")
}
