package testcrash

import (
	"math/rand/v2"

	"github.com/hermeshttp/hermes"
)

// phase is the moment at which a sender is killed.
type phase string

const (
	beforeSend  phase = "before send"  // the first attempt begins
	inFlight    phase = "in flight"    // the receiver has the request, the sender no answer
	waiting     phase = "waiting"      // between two attempts
	beforeSave  phase = "before save"  // the database is about to be told of a message, or of a failure
	beforePurge phase = "before purge" // a delivered message's row is about to be deleted
	anyTime     phase = "any time"
)

// placed are the phases to which a sender comes, as opposed to a time that comes by itself.
var placed = []phase{beforeSend, inFlight, waiting, beforeSave, beforePurge}

// plan says when to kill, in a random order: 15 % of the kills in each placed phase, the rest at any time.
func plan(rng *rand.Rand, kills int) []phase {
	all := make([]phase, 0, kills)
	for _, p := range placed {
		for range max(1, kills*15/100) {
			all = append(all, p)
		}
	}
	for len(all) < kills {
		all = append(all, anyTime)
	}
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// point is a place in a sender's program.
type point string

const (
	nowhere   point = ""
	atAttempt point = "attempt" // its hook, of a first attempt
	atWait    point = "wait"
	atInsert  point = "insert"
	atRecord  point = "record" // the UPDATE with which a held row learns of its failure
	atDelete  point = "delete"
)

// pointOf is where a sender stops in order to be killed in phase p. In flight it is the receiver that notices.
func pointOf(p phase, d hermes.Durability, rng *rand.Rand) point {
	switch p {
	case beforeSend:
		return atAttempt
	case waiting:
		return atWait
	case beforePurge:
		return atDelete
	case beforeSave:
		if d != hermes.SaveAfterRetries && rng.IntN(2) == 0 {
			return atRecord
		}
		return atInsert
	}
	return nowhere
}
