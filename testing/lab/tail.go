package lab

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// tailWriter keeps the last bytes written to it for error messages and passes
// all of them on. It is safe for concurrent use.
type tailWriter struct {
	mu   sync.Mutex
	next io.Writer // guarded by mu; nil: nowhere
	buf  []byte    // guarded by mu
}

const tailBytes = 16 << 10

func (w *tailWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, p...)
	if len(w.buf) > 2*tailBytes {
		w.buf = bytes.Clone(w.buf[len(w.buf)-tailBytes:])
	}
	if w.next != nil {
		if _, err := w.next.Write(p); err != nil {
			w.next = nil // a broken log must not end the program that writes it
		}
	}
	return len(p), nil
}

// last returns the last n lines, each indented by a tab.
func (w *tailWriter) last(n int) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := strings.TrimSpace(string(w.buf))
	if text == "" {
		return "\t(nothing)"
	}
	lines := strings.Split(text, "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return "\t" + strings.Join(lines, "\n\t")
}
