package link

import "bytes"

// The stream of a port that carries a Mux has one special byte, escape. In data it is
// followed by a 0; otherwise a control word begins there. So the receiver finds control
// words whatever came before them, half a message or garbage. The byte is one that
// UTF-8 never has.
const (
	escape = 0xc1
	// controlMark is what a control word begins with.
	controlMark = "\xc1GPbMuX1"
	// controlSize is the size of a control word in bytes: the mark, kind u8, seven
	// zeros, nonce.
	controlSize = 32
	nonceSize   = 16
)

// kinds of control words.
const (
	controlHello  = 'h' // guest: a session begins, with this nonce
	controlAnswer = 'a' // host: it has begun
	controlReset  = 'r' // host: there is no session; without a nonce
)

// control is a control word. The nonce has no escape in it.
type control struct {
	kind  byte
	nonce [nonceSize]byte
}

func (w control) append(dst []byte) []byte {
	dst = append(dst, controlMark...)
	dst = append(dst, w.kind, 0, 0, 0, 0, 0, 0, 0)
	return append(dst, w.nonce[:]...)
}

// stuff adds data to dst as it is sent.
func stuff(dst, data []byte) []byte {
	for {
		i := bytes.IndexByte(data, escape)
		if i < 0 {
			return append(dst, data...)
		}
		dst = append(append(dst, data[:i+1]...), 0)
		data = data[i+1:]
	}
}

// unstuffer finds data and control words in what is received.
type unstuffer struct {
	escaped bool   // the last byte was an escape
	word    []byte // what came of a control word behind the escape; nil outside of one
}

// events is what an unstuffer finds.
type events interface {
	data([]byte)     // valid during the call
	control(control) //
	garbage()        // bytes that no sender sends
}

// take looks at what was read; it changes b.
func (u *unstuffer) take(b []byte, e events) {
	for len(b) > 0 {
		switch {
		case u.escaped:
			u.escaped = false
			switch b[0] {
			case 0: // the escape itself is data
				b[0] = escape
				n := 1 + plain(b[1:])
				e.data(b[:n])
				b = b[n:]
				continue
			case controlMark[1]:
				u.word = make([]byte, 0, controlSize-1)
				continue
			case escape:
				u.escaped = true
			}
			e.garbage()
			b = b[1:]
		case u.word != nil:
			n := min(plain(b), controlSize-1-len(u.word))
			u.word = append(u.word, b[:n]...)
			b = b[n:]
			if len(u.word) == controlSize-1 {
				u.finish(e)
			} else if len(b) > 0 { // an escape within the word
				u.word = nil
				e.garbage()
			}
		case b[0] == escape:
			u.escaped = true
			b = b[1:]
		default:
			n := plain(b)
			e.data(b[:n])
			b = b[n:]
		}
	}
}

// plain returns how many bytes come before an escape.
func plain(b []byte) int {
	if n := bytes.IndexByte(b, escape); n >= 0 {
		return n
	}
	return len(b)
}

func (u *unstuffer) finish(e events) {
	p := u.word
	u.word = nil
	var w control
	rest, ok := bytes.CutPrefix(p, []byte(controlMark[1:]))
	if ok {
		w.kind = rest[0]
		copy(w.nonce[:], rest[8:])
		ok = (w.kind == controlHello || w.kind == controlAnswer || w.kind == controlReset) &&
			len(bytes.Trim(rest[1:8], "\x00")) == 0
	}
	if ok {
		e.control(w)
	} else {
		e.garbage()
	}
}
