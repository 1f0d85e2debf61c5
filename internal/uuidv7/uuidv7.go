// Package uuidv7 makes the identifiers of messages: time-ordered UUIDs of version 7, RFC 9562 section 5.7.
package uuidv7

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"time"
)

// New returns a UUID of version 7 in its text form. The 12 bits behind the millisecond hold its fraction (RFC 9562
// section 6.2, method 3), so that identifiers made in one process sort by when they were made. The other 62 bits come
// from the operating system's random source: a copied process or a restored virtual machine must not repeat itself,
// because an insert whose identifier is already there counts as done.
func New() string {
	var id [16]byte
	rand.Read(id[8:]) // never fails: crypto/rand ends the program instead
	now := time.Now()
	ms := uint64(now.UnixMilli())
	fraction := uint64(now.Nanosecond()) % 1_000_000 << 12 / 1_000_000
	binary.BigEndian.PutUint64(id[:8], ms<<16|0x7000|fraction)
	id[8] = id[8]&0x3f | 0x80
	return format(id)
}

func format(id [16]byte) string {
	var text [36]byte
	hex.Encode(text[0:8], id[0:4])
	text[8] = '-'
	hex.Encode(text[9:13], id[4:6])
	text[13] = '-'
	hex.Encode(text[14:18], id[6:8])
	text[18] = '-'
	hex.Encode(text[19:23], id[8:10])
	text[23] = '-'
	hex.Encode(text[24:36], id[10:16])
	return string(text[:])
}
