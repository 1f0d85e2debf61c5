package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"
)

// report is all that was measured.
type report struct {
	Conditions []condition `json:"conditions"`
	Results    []*result   `json:"measurements"`
}

// condition is something that the numbers depend on.
type condition struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// result is the answer of one measurement.
type result struct {
	Name       string     `json:"name"`
	About      string     `json:"about"`
	Conditions string     `json:"conditions,omitempty"`
	Rounds     int        `json:"rounds"`
	Metrics    []metric   `json:"metrics"`
	Standings  []standing `json:"contestants"`
	Goals      []verdict  `json:"goals"`
	Error      string     `json:"error,omitempty"` // why there is no answer
}

type standing struct {
	Name   string            `json:"name"`
	Values map[metric]spread `json:"values"`
}

type verdict struct {
	What     string   `json:"what"`
	Relation relation `json:"relation"`
	Limit    float64  `json:"limit"`
	Measured spread   `json:"measured"`
	Met      bool     `json:"met"`
}

// write writes the report to a file, in the form that encode gives it; no file, no work.
func (r *report) write(file string, encode func() ([]byte, error)) error {
	if file == "" {
		return nil
	}
	content, err := encode()
	if err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o644)
}

func (r *report) json() ([]byte, error) {
	content, err := json.MarshalIndent(r, "", "  ")
	return append(content, '\n'), err
}

func (r *report) markdown() ([]byte, error) {
	var text strings.Builder
	text.WriteString(markdownConditions(r.Conditions))
	for _, result := range r.Results {
		text.WriteString("\n" + result.markdown())
	}
	return []byte(text.String()), nil
}

func markdownConditions(conditions []condition) string {
	text := "# Hermes beside its peers\n\n"
	for _, c := range conditions {
		text += "- " + c.Name + ": " + c.Value + "\n"
	}
	return text
}

func (r *result) markdown() string {
	text := fmt.Sprintf("## %s\n\n%s.\n", r.Name, sentence(r.About))
	if r.Error != "" {
		return text + "\nNOT MEASURED: " + r.Error + "\n"
	}
	if r.Conditions != "" {
		text += sentence(r.Conditions) + ".\n"
	}
	text += fmt.Sprintf("Rounds: %d; shown are the median and, if they differ, the lowest and the highest.\n\n", r.Rounds)
	return text + aligned(r.standings()) + "\n" + aligned(r.goals())
}

func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

func (r *result) standings() [][]string {
	head := []string{""}
	for _, m := range r.Metrics {
		head = append(head, string(m))
	}
	rows := [][]string{head}
	for _, s := range r.Standings {
		row := []string{s.Name}
		for _, m := range r.Metrics {
			row = append(row, s.Values[m].String())
		}
		rows = append(rows, row)
	}
	return rows
}

func (r *result) goals() [][]string {
	rows := [][]string{{"goal", "limit", "measured", "met"}}
	for _, g := range r.Goals {
		met := "no"
		if g.Met {
			met = "yes"
		}
		rows = append(rows, []string{g.What, fmt.Sprintf("%s %s", g.Relation, number(g.Limit)), g.Measured.String(), met})
	}
	return rows
}

// aligned is a Markdown table whose columns are aligned for those who read it as it is. Its first row is the head.
func aligned(rows [][]string) string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell), len("---"))
		}
	}
	var text strings.Builder
	for i, row := range rows {
		for j, cell := range row {
			text.WriteString("| " + cell + strings.Repeat(" ", widths[j]-utf8.RuneCountInString(cell)+1))
		}
		text.WriteString("|\n")
		for j := range widths {
			if i == 0 {
				text.WriteString("| " + strings.Repeat("-", widths[j]) + " ")
			}
		}
		if i == 0 {
			text.WriteString("|\n")
		}
	}
	return text.String()
}
