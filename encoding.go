package hermes

import (
	"encoding/json"
	"fmt"

	"github.com/hermeshttp/hermes/internal/headertext"
)

// encodedMessage is a FailedMessage as bytes. Header and body need not be UTF-8, so they are bytes here too.
type encodedMessage struct {
	Version int
	FailedMessage
	Header    []byte // hides the embedded one
	HasHeader bool
}

const encodingVersion = 1

// MarshalBinary implements encoding.BinaryMarshaler: all of the message, exactly, for keeping it where the database
// cannot be reached. It holds every secret that the message holds.
func (m *FailedMessage) MarshalBinary() ([]byte, error) {
	e := encodedMessage{Version: encodingVersion, FailedMessage: *m, Header: headertext.Encode(m.Header), HasHeader: m.Header != nil}
	return json.Marshal(e)
}

// UnmarshalBinary implements encoding.BinaryUnmarshaler. It fails with ErrUnreadable.
func (m *FailedMessage) UnmarshalBinary(data []byte) error {
	var e encodedMessage
	if err := json.Unmarshal(data, &e); err != nil {
		return fmt.Errorf("%w: malformed encoding", ErrUnreadable)
	}
	if e.Version != encodingVersion {
		return fmt.Errorf("%w: encoding of version %d", ErrUnreadable, e.Version)
	}
	header, err := headertext.Decode(e.Header)
	if err != nil {
		return fmt.Errorf("%w: header: %w", ErrUnreadable, err)
	}
	*m = e.FailedMessage
	m.Header = nil
	if e.HasHeader {
		m.Header = header
	}
	return nil
}
