package link

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"unicode/utf8"
)

const (
	helloMagic  = "GPBL"
	tokenSize   = 16
	helloSize   = 4 + 2 + 2 + tokenSize + 8 + 8 + 2
	welcomeSize = 2 + 2 + 8

	// MaxToken is the longest token in bytes: what a thread's name can hold.
	MaxToken = tokenSize - 1
)

// Flags of Hello and Welcome. Others are for later and have no meaning.
const (
	FlagCompressed      uint16 = 1 << iota // takes compressed updates, and in Hello makes them
	FlagImportResources                    // Welcome: resources of the import device may be named
	FlagGPUResources                       // Welcome: resources of the GPU may be named
)

// Hello is what the guest's end says of itself and of its client.
type Hello struct {
	Version   uint16 // the highest that it speaks
	Flags     uint16
	Token     string // name of the context whose resources the client may name, or ""; see NewToken
	Clock     uint64 // CLOCK_MONOTONIC in nanoseconds
	RenderDev uint64 // dev_t of the render node, 0 if there is none
	Name      string // what the client is called; not trusted
}

// NewToken makes a token that nobody can guess, of letters, digits, - and _.
func NewToken() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])[:MaxToken]
}

// Append encodes the Hello. A name that is too long, or not UTF-8, is made to fit.
// ErrTooBig is the token's.
func (h *Hello) Append(dst []byte) ([]byte, error) {
	if err := checkToken(h.Token); err != nil {
		return dst, fmt.Errorf("%w: %w", ErrTooBig, err)
	}
	name := fitText(h.Name, MaxName)
	dst = append(dst, helloMagic...)
	dst = le.AppendUint16(dst, h.Version)
	dst = le.AppendUint16(dst, h.Flags)
	dst = append(dst, h.Token...)
	dst = append(dst, make([]byte, tokenSize-len(h.Token))...)
	dst = le.AppendUint64(dst, h.Clock)
	dst = le.AppendUint64(dst, h.RenderDev)
	dst = le.AppendUint16(dst, uint16(len(name)))
	return append(dst, name...), nil
}

// Decode reads the payload of a Hello frame and checks it.
func (h *Hello) Decode(p []byte) error {
	*h = Hello{}
	if len(p) < helloSize {
		return protocol("Hello of %d bytes, need %d", len(p), helloSize)
	}
	if string(p[:4]) != helloMagic {
		return protocol("Hello begins with %q, must be %q", p[:4], helloMagic)
	}
	version := le.Uint16(p[4:])
	if version == 0 {
		return protocol("Hello: version 0")
	}
	token := p[8 : 8+tokenSize]
	text, pad, _ := bytes.Cut(token, []byte{0})
	if len(text) > MaxToken || len(bytes.Trim(pad, "\x00")) != 0 {
		return protocol("Hello: token %q, must be at most %d characters and then zeros", token, MaxToken)
	}
	if err := checkToken(string(text)); err != nil {
		return protocol("Hello: %v", err)
	}
	rest := p[8+tokenSize:]
	n, name := int(le.Uint16(rest[16:])), rest[18:]
	if n > MaxName || n != len(name) {
		return protocol("Hello: name_len %d, there are %d bytes, limit %d", n, len(name), MaxName)
	}
	if !utf8.Valid(name) {
		return protocol("Hello: name %q is not UTF-8", name)
	}
	*h = Hello{
		Version: version, Flags: le.Uint16(p[6:]), Token: string(text),
		Clock: le.Uint64(rest), RenderDev: le.Uint64(rest[8:]), Name: string(name),
	}
	return nil
}

// checkToken: what is compared with a thread's name must be text that survives there.
func checkToken(s string) error {
	if len(s) > MaxToken {
		return fmt.Errorf("token of %d bytes, limit %d", len(s), MaxToken)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return fmt.Errorf("token %q: byte %d is %#x, must be printable ASCII", s, i, s[i])
		}
	}
	return nil
}

// fitText cuts a text to limit bytes of valid UTF-8.
func fitText(s string, limit int) string {
	if len(s) > limit {
		cut := limit
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut]
	}
	if utf8.ValidString(s) {
		return s
	}
	b := bytes.ToValidUTF8([]byte(s), []byte("?"))
	return string(b)
}

// Welcome is the host's answer to Hello.
type Welcome struct {
	Version uint16 // that both speak from here on
	Flags   uint16
	Clock   uint64 // CLOCK_MONOTONIC in nanoseconds
}

// Append encodes the Welcome.
func (w *Welcome) Append(dst []byte) []byte {
	dst = le.AppendUint16(dst, w.Version)
	dst = le.AppendUint16(dst, w.Flags)
	return le.AppendUint64(dst, w.Clock)
}

// Decode reads the payload of a Welcome frame.
func (w *Welcome) Decode(p []byte) error {
	*w = Welcome{}
	if len(p) != welcomeSize {
		return protocol("Welcome of %d bytes, must be %d", len(p), welcomeSize)
	}
	*w = Welcome{Version: le.Uint16(p), Flags: le.Uint16(p[2:]), Clock: le.Uint64(p[4:])}
	if w.Version == 0 {
		*w = Welcome{}
		return protocol("Welcome: version 0")
	}
	return nil
}
