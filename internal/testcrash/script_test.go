package testcrash

import (
	"math/rand/v2"

	"github.com/hermeshttp/hermes"
)

// script is a message's body: which one it is, and how the receiver is to answer each of its requests. What comes after
// the last answer is accepted.
type script struct {
	Number  int      `json:"number"`
	Answers []answer `json:"answers"`
	DelayMS int      `json:"delay_ms"` // before each answer
}

// scriptStart is how a script's JSON begins, and nothing else that is stored does.
const scriptStart = `{"number":`

type answer string

const (
	accept answer = "accept" // 200
	refuse answer = "refuse" // 503
	drop   answer = "drop"   // the connection is closed, nothing was done
	lose   answer = "lose"   // the connection is closed, but all was done
	hold   answer = "hold"   // no answer while the sender lives, nothing was done
	keep   answer = "keep"   // no answer while the sender lives, but all was done
)

// attempts are those that a sender makes of a message, in process.
const attempts = 3

// isAccepted tells whether the receiver processes a request that it answers so.
func (a answer) isAccepted() bool { return a == accept || a == lose || a == keep }

// isHeld tells whether the request stays in flight.
func (a answer) isHeld() bool { return a == hold || a == keep }

// newScript makes up a message. Half of them bring a sender to where it is to be killed, the others are there to be hit
// at whatever they are doing then.
func newScript(rng *rand.Rand, number int, spec *childSpec) script {
	s := script{Number: number, DelayMS: rng.IntN(8)}
	if spec.Unfenced {
		s.DelayMS += 20 // time for others to send it too
	}
	if rng.IntN(2) == 0 {
		s.Answers = answersFor(rng, spec)
		return s
	}
	usual := []answer{accept, refuse, refuse, drop, lose}
	if spec.Phase == waiting {
		usual = usual[:2] // after a broken connection the next attempt may come at once, or not
	}
	for range rng.IntN(attempts + 2) {
		s.Answers = append(s.Answers, usual[rng.IntN(len(usual))])
	}
	return s
}

func answersFor(rng *rand.Rand, spec *childSpec) []answer {
	allRefused := []answer{refuse, refuse, refuse}
	switch {
	case spec.Phase == inFlight:
		return append(allRefused[:rng.IntN(attempts)], []answer{hold, keep}[rng.IntN(2)])
	case spec.Phase == waiting:
		return allRefused
	case spec.Point == atRecord || spec.Point == atInsert && spec.Durability == hermes.SaveAfterRetries:
		return allRefused
	case spec.Point == atInsert && spec.Durability == hermes.SaveBeforeRetries:
		return []answer{refuse}
	case spec.Point == atDelete && spec.Durability == hermes.SaveAfterRetries:
		return allRefused // the sender then retries the row itself
	case spec.Point == atDelete && spec.Durability == hermes.SaveBeforeRetries:
		return []answer{refuse}
	}
	return nil
}
