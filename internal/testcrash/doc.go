// Package testcrash kills processes that send messages through Hermes, again and again and at chosen moments, and counts
// what became of the messages. It has nothing but tests; its processes, its receiver and its databases are real.
//
//	go test ./internal/testcrash                                                  # a short run, as in CI
//	go test ./internal/testcrash -run TestCrash -crash.cycles 2000 -timeout 2h -v # a long one
//
// A run has one way of saving (hermes.Durability) and one database. In each of its cycles a sender starts, sends until it
// comes to the moment in question, and is killed. Meanwhile two other processes retry what is due. At the end the
// harness waits until they have emptied the table, once the claims of the dead have run out, and then judges:
//
//   - A message that was promised to arrive must have arrived. What is promised differs by Durability; see promises.
//   - A message that arrived more than once must have had the same idempotency key each time.
//   - No two processes may have been sending the same message at the same time.
//
// What a sender did it tells on its standard output, one write for each event, so that nothing of it is lost with the
// sender. What arrived, the receiver writes down.
//
// Two controls show that the harness would notice. Messages that are saved after their retries, but judged as if saved
// before they are sent, are lost. And processes whose claims bind nobody, as a database driver rewrites their statements,
// send messages at the same time.
package testcrash
