package testcrash

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hermeshttp/hermes"
)

// results are the rows of the table.
type results struct {
	mu   sync.Mutex
	rows []result
}

type result struct {
	verdict
	title    string
	database string
	control  bool
	kills    map[phase]int
	elapsed  time.Duration
}

func (rs *results) add(r result) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.rows = append(rs.rows, r)
}

func nameOf(d hermes.Durability) string {
	return [...]string{"SaveAfterRetries", "SaveBeforeRetries", "SaveBeforeSend"}[d]
}

// markdown is the table, controls last.
func (rs *results) markdown() string {
	slices.SortFunc(rs.rows, func(a, b result) int {
		if a.control != b.control {
			return map[bool]int{true: 1, false: -1}[a.control]
		}
		return cmp.Or(strings.Compare(a.title, b.title), strings.Compare(b.database, a.database))
	})
	phases := slices.Concat(placed, []phase{anyTime})
	var text strings.Builder
	header := "| run | database | kills |"
	for _, p := range phases {
		header += " " + string(p) + " |"
	}
	header += " messages | promised | delivered | **lost** | duplicated | **other key** | **simultaneous** | late | refused | time |"
	text.WriteString(header + "\n" + strings.Repeat("|---", strings.Count(header, "|")-1) + "|\n")
	for _, r := range rs.rows {
		total, cells := 0, ""
		for _, p := range phases {
			total += r.kills[p]
			cells += fmt.Sprintf(" %d |", r.kills[p])
		}
		fmt.Fprintf(&text, "| %s | %s | %d |%s %d | %d | %d | %d | %d | %d | %d | %d | %d | %v |\n", r.title, r.database, total, cells,
			r.Messages, r.Promised, r.Delivered, r.Lost, r.Duplicated, r.OtherKey, r.Simultaneous, r.Late, r.Refused,
			r.elapsed.Round(time.Second))
	}
	return text.String()
}
