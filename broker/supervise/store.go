package supervise

import (
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/keep"
)

// Limits of what a worker can have kept. A worker may have been taken over by its guest.
const (
	maxEntries = 1 << 18
	maxBytes   = 256 << 20
)

// store is what the workers have kept. One goroutine at a time uses it: that which reads
// the worker's socket, then that which starts the next.
type store struct {
	log     *zap.Logger
	entries map[string]*keep.Message
	bytes   int
	full    bool // that was logged
}

func newStore(log *zap.Logger) *store {
	return &store{log: log, entries: map[string]*keep.Message{}}
}

// put takes the message over.
func (s *store) put(m *keep.Message) {
	s.drop(m.Key)
	if len(s.entries) >= maxEntries || s.bytes+len(m.Value) > maxBytes || len(m.FDs) > 1 {
		if !s.full {
			s.full = true
			s.log.Warn("the worker keeps too much; what is left out is lost if it dies", zap.Int("entries", len(s.entries)), zap.Int("bytes", s.bytes))
		}
		m.CloseFDs()
		return
	}
	s.bytes += len(m.Value)
	s.entries[m.Key] = m
}

func (s *store) drop(key string) {
	if m := s.entries[key]; m != nil {
		s.bytes -= len(m.Value)
		m.CloseFDs()
		delete(s.entries, key)
	}
}

// clear drops all whose keys begin with prefix.
func (s *store) clear(prefix string) {
	for key := range s.entries {
		if strings.HasPrefix(key, prefix) {
			s.drop(key)
		}
	}
}

// list returns the entries by key. They stay the store's.
func (s *store) list() []*keep.Message {
	out := make([]*keep.Message, 0, len(s.entries))
	for _, m := range s.entries {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b *keep.Message) int { return strings.Compare(a.Key, b.Key) })
	return out
}
