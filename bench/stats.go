package main

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// spread is what the rounds yielded.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spreadOf(rounds []round, value func(round) float64) spread {
	var values []float64
	for _, r := range rounds {
		values = append(values, value(r))
	}
	return spread{Median: median(values), Min: slices.Min(values), Max: slices.Max(values)}
}

// median is the value in the middle, or the mean of the two there; values is sorted by it.
func median(values []float64) float64 {
	slices.Sort(values)
	middle := len(values) / 2
	if len(values)%2 == 1 {
		return values[middle]
	}
	return (values[middle-1] + values[middle]) / 2
}

// number shows a value with three or more significant digits, and thousands apart.
func number[T int | float64](value T) string {
	v := float64(value)
	decimals := 0
	if size := math.Abs(v); size != 0 && size < 100 {
		decimals = min(2-int(math.Floor(math.Log10(size))), 6)
	}
	text := strconv.FormatFloat(v, 'f', decimals, 64)
	if strings.Contains(text, ".") {
		return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
	}
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// String shows the median, and the lowest and the highest value if there is anything between them.
func (s spread) String() string {
	lowest, highest := number(s.Min), number(s.Max)
	if lowest == highest {
		return number(s.Median)
	}
	return number(s.Median) + " (" + lowest + "…" + highest + ")"
}
