package apps

import "github.com/gpubroker/gpubroker/broker/link"

// TransportStatus counts what came over one kind of carrier. Bytes include the frames'
// headers, not what a carrier adds.
type TransportStatus struct {
	Clients   int    `json:"clients"` // now
	Served    uint64 `json:"served"`  // clients that ended
	Refused   uint64 `json:"refused"` // connections that did not become clients
	Pipes     int    `json:"pipes"`   // open now
	FramesIn  uint64 `json:"frames_in"`
	FramesOut uint64 `json:"frames_out"`
	BytesIn   uint64 `json:"bytes_in"`
	BytesOut  uint64 `json:"bytes_out"`
}

func (t *TransportStatus) count(s link.Stats) {
	t.FramesIn += s.FramesIn
	t.FramesOut += s.FramesOut
	t.BytesIn += s.BytesIn
	t.BytesOut += s.BytesOut
}

// Status is what a Service has done.
type Status struct {
	Transports map[string]TransportStatus `json:"transports"`
	// Queued is bytes of pipes that came and that nobody has read yet.
	Queued int64 `json:"queued_bytes"`
}

// Status returns the counters.
func (s *Service) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Status{Transports: make(map[string]TransportStatus, len(s.totals)), Queued: s.limits.Queued.Used()}
	for name, t := range s.totals {
		out.Transports[name] = t
	}
	for c, name := range s.live {
		t := out.Transports[name]
		t.Clients++
		t.Pipes += c.OpenPipes()
		t.count(c.Stats())
		out.Transports[name] = t
	}
	return out
}

func (s *Service) refused(transport string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.totals[transport]
	t.Refused++
	s.totals[transport] = t
}

func (s *Service) add(c *link.Conn, transport string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live[c] = transport
}

// remove forgets a client and gives back its place and its token.
func (s *Service) remove(c *link.Conn, transport, token string) {
	s.mu.Lock()
	delete(s.live, c)
	t := s.totals[transport]
	t.Served++
	t.count(c.Stats())
	s.totals[transport] = t
	s.mu.Unlock()
	s.dismiss(token)
}
