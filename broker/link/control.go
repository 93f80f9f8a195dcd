package link

import "unicode/utf8"

// Reason says why a pipe is closed.
type Reason uint32

const (
	EndOfData Reason = iota // all data was sent; from the end that has the content
	NoReader                // nobody reads any more, or the data cannot be had

	reasonEnd
)

// Close is a Close frame.
type Close struct {
	Pipe   uint32
	Reason Reason
}

// Append encodes the frame's payload.
func (c Close) Append(dst []byte) []byte {
	return le.AppendUint32(le.AppendUint32(dst, c.Pipe), uint32(c.Reason))
}

// DecodeClose reads the payload of a Close frame.
func DecodeClose(p []byte) (Close, error) {
	if len(p) != 8 {
		return Close{}, protocol("Close of %d bytes, must be 8", len(p))
	}
	c := Close{Pipe: le.Uint32(p), Reason: Reason(le.Uint32(p[4:]))}
	if c.Reason >= reasonEnd {
		return Close{}, protocol("Close: reason %d, known are 0 to %d", c.Reason, reasonEnd-1)
	}
	return c, nil
}

// Credit is a Credit frame.
type Credit struct {
	Pipe  uint32
	Bytes uint32
}

// Append encodes the frame's payload.
func (c Credit) Append(dst []byte) []byte {
	return le.AppendUint32(le.AppendUint32(dst, c.Pipe), c.Bytes)
}

// DecodeCredit reads the payload of a Credit frame.
func DecodeCredit(p []byte) (Credit, error) {
	if len(p) != 8 {
		return Credit{}, protocol("Credit of %d bytes, must be 8", len(p))
	}
	c := Credit{Pipe: le.Uint32(p), Bytes: le.Uint32(p[4:])}
	if c.Bytes == 0 || c.Bytes > MaxCredit {
		return Credit{}, protocol("Credit of %d bytes, must be 1 to %d", c.Bytes, MaxCredit)
	}
	return c, nil
}

// Ping is a Ping or Pong frame.
type Ping struct {
	Cookie uint64
	Clock  uint64 // CLOCK_MONOTONIC of the sender in nanoseconds
}

// Append encodes the frame's payload.
func (g Ping) Append(dst []byte) []byte {
	return le.AppendUint64(le.AppendUint64(dst, g.Cookie), g.Clock)
}

// DecodePing reads the payload of a Ping or Pong frame.
func DecodePing(p []byte) (Ping, error) {
	if len(p) != 16 {
		return Ping{}, protocol("Ping or Pong of %d bytes, must be 16", len(p))
	}
	return Ping{Cookie: le.Uint64(p), Clock: le.Uint64(p[8:])}, nil
}

// DecodeError reads the payload of an Error frame.
func DecodeError(p []byte) (*RemoteError, error) {
	if len(p) > MaxError || !utf8.Valid(p) {
		return nil, protocol("Error of %d bytes, must be UTF-8 of at most %d", len(p), MaxError)
	}
	return &RemoteError{Text: string(p)}, nil
}
