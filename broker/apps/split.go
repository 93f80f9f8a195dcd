package apps

import (
	"encoding/binary"
	"fmt"
)

// splitter cuts a stream of Wayland bytes at the borders of messages.
type splitter struct {
	rest []byte // the beginning of a message whose end has not come
}

// split calls send for pieces of whole messages: the first of at most first bytes, the
// others of at most limit. What is left of a message waits for the next call. send is
// called with nothing if must, asked in the end, says so.
func (s *splitter) split(data []byte, first, limit int, send func([]byte) error, must func() bool) error {
	if len(s.rest) > 0 {
		s.rest = append(s.rest, data...)
		data = s.rest
	}
	for room := first; ; room = limit {
		n, err := wholeMessages(data, room)
		if err != nil {
			return err
		}
		if n == 0 {
			if size := nextSize(data); size <= len(data) && size > 0 && room < limit {
				// The items leave no room for it: they go first.
				if err := send(nil); err != nil {
					return err
				}
				continue
			}
			break
		}
		if err := send(data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	s.rest = append(s.rest[:0], data...)
	if must() {
		return send(nil)
	}
	return nil
}

// nextSize returns the bytes of the first message, 0 if that is not known yet.
func nextSize(p []byte) int {
	if len(p) < 8 {
		return 0
	}
	return int(binary.LittleEndian.Uint32(p[4:]) >> 16)
}

// wholeMessages returns how many bytes of p are whole messages, at most room.
func wholeMessages(p []byte, room int) (int, error) {
	n := 0
	for {
		size := nextSize(p[n:])
		if size == 0 && len(p)-n >= 8 || size > 0 && size < 8 {
			return 0, fmt.Errorf("message of %d bytes, must be at least 8", size)
		}
		if size == 0 || size > len(p)-n || n+size > room {
			return n, nil
		}
		n += size
	}
}
