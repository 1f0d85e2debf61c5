package testcrash

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/hermeshttp/hermes"
)

// toldBy has a journal take in what a process said.
func toldBy(j *journal, process string, events ...event) {
	for _, e := range events {
		j.told(process, e)
	}
}

func arrived(j *journal, number int, process string, attempt int64, key string, a answer) {
	j.received(number, func(int) answer { return a }, request{attempt: attemptID{process, attempt}, key: key})
}

func at(seconds int) time.Time { return time.Unix(int64(seconds), 0) }

func TestJudgeLost(t *testing.T) {
	t.Parallel()
	j := newJournal()
	toldBy(j, "a",
		event{kind: intended, number: 1}, // nothing is promised of it
		event{kind: attemptStarted, number: 2, attempt: 1, text: "1 false"},
		event{kind: saved, number: 3},
		event{kind: attemptStarted, number: 4, attempt: 2, text: "2 false"},
		event{kind: accepted, number: 5},
		event{kind: accepted, number: 6},
		event{kind: attemptStarted, number: 6, attempt: 3, text: "1 false"})
	arrived(j, 6, "a", 3, "key", accept)
	for d, want := range map[hermes.Durability]int{hermes.SaveAfterRetries: 1, hermes.SaveBeforeRetries: 3, hermes.SaveBeforeSend: 4} {
		v := j.judge(d)
		assert.Equal(t, want, v.Lost, nameOf(d))
		assert.Equal(t, want+1, v.Promised, nameOf(d))
		assert.Equal(t, 1, v.Delivered)
		assert.Equal(t, 6, v.Messages)
	}
}

func TestJudgeKeys(t *testing.T) {
	t.Parallel()
	j := newJournal()
	toldBy(j, "a", event{kind: intended, number: 1, text: "mine"}, event{kind: intended, number: 3, text: "mine"})
	for i, r := range []struct {
		number int
		key    string
	}{{1, "mine"}, {1, "mine"}, {2, "one"}, {2, "other"}, {3, "not mine"}, {4, ""}, {5, "any"}} {
		toldBy(j, "a", event{kind: attemptStarted, number: r.number, attempt: int64(i), text: "1 false"})
		arrived(j, r.number, "a", int64(i), r.key, lose)
	}
	v := j.judge(hermes.SaveBeforeSend)
	assert.Equal(t, 3, v.OtherKey)
	assert.Equal(t, 2, v.Duplicated)
	assert.Empty(t, j.problems)
}

func TestJudgeSimultaneous(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		second             string // by whom the second request is, of which the first began at 10
		start              int
		end, died          int // of the first
		simultaneous, late int
	}{
		"during":           {second: "b", start: 11, end: 12, simultaneous: 1},
		"after":            {second: "b", start: 13, end: 12},
		"the same process": {second: "a", start: 11, end: 12},
		"before it died":   {second: "b", start: 11, died: 12, simultaneous: 1},
		"after it died":    {second: "b", start: 13, died: 12},
		"after its claim":  {second: "b", start: 16, end: 20, late: 1},
		"while it goes on": {second: "b", start: 11, simultaneous: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := newJournal()
			toldBy(j, "a", event{kind: attemptStarted, number: 1, attempt: 1, text: "1 false", at: at(10)})
			arrived(j, 1, "a", 1, "key", hold)
			toldBy(j, c.second, event{kind: attemptStarted, number: 1, attempt: 2, text: "1 true", at: at(c.start)},
				event{kind: attemptDone, number: 1, attempt: 2, at: at(30)})
			arrived(j, 1, c.second, 2, "key", accept)
			if c.end != 0 {
				toldBy(j, "a", event{kind: attemptDone, number: 1, attempt: 1, at: at(c.end)})
			}
			if c.died != 0 {
				j.died("a", at(c.died))
			}
			v := j.judge(hermes.SaveBeforeSend)
			assert.Equal(t, c.simultaneous, v.Simultaneous)
			assert.Equal(t, c.late, v.Late)
		})
	}
}

func TestUnfence(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "UPDATE t SET claim_token = '' WHERE (TRUE OR claim_token = $12) AND (TRUE OR claimed_until <= now())",
		unfence("UPDATE t SET claim_token = '' WHERE claim_token = $12 AND (claimed_until IS NULL OR claimed_until <= now())"))
}
