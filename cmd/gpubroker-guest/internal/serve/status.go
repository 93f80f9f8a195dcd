package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/shm"
)

// Status is what `gpubroker-guest status` shows.
type Status struct {
	Display   string            `json:"display"`
	Transport string            `json:"transport"`
	WhyNot    string            `json:"why_not_better,omitempty"` // why not a better transport
	GPU       string            `json:"gpu,omitempty"`
	Import    bool              `json:"import"` // wl_shm goes without copies
	NoImport  string            `json:"no_import,omitempty"`
	Uptime    float64           `json:"uptime_s"`
	Refused   uint64            `json:"refused"`
	Buffers   map[string]uint64 `json:"shm_buffers"`  // wl_shm buffers made, by tier
	Copied    map[string]uint64 `json:"bytes_copied"` // by tier
	Clients   []ClientStatus    `json:"clients"`
}

// ClientStatus is a client's part of it.
type ClientStatus struct {
	Name    string            `json:"name"`
	PID     int               `json:"pid"`
	Since   time.Time         `json:"since"`
	Windows []string          `json:"windows"` // app id and title of its windows, newest values
	Frames  map[string]uint64 `json:"frames"`  // commits with a new buffer, by tier
	Copied  map[string]uint64 `json:"bytes_copied"`
	Sent    uint64            `json:"bytes_requests"`
	Why     string            `json:"why,omitempty"` // why wl_shm buffers have no better tier
}

// Status returns the present state.
func (s *Server) Status(displayPath string) Status {
	st := Status{
		Display: displayPath, Transport: s.t.Name(), Uptime: time.Since(s.started).Seconds(),
		Import: s.importer != nil, Refused: s.refused.Load(),
		Buffers: map[string]uint64{}, Copied: map[string]uint64{}, Clients: []ClientStatus{},
	}
	if s.why != nil {
		st.WhyNot = s.why.Error()
	}
	if s.noImport != nil {
		st.NoImport = s.noImport.Error()
	}
	if s.gpu != nil {
		st.GPU = s.gpu.Path
	}
	for i := range s.totals.Buffers {
		tier := shm.Tier(i).String()
		st.Buffers[tier] = s.totals.Buffers[i].Load()
		st.Copied[tier] = s.totals.Bytes[i].Load()
	}
	for _, c := range s.sorted() {
		st.Clients = append(st.Clients, c.status())
	}
	return st
}

func (c *client) status() ClientStatus {
	cs := ClientStatus{Name: c.name, PID: c.pid, Since: c.since, Windows: c.stats.Windows(),
		Frames: map[string]uint64{}, Copied: map[string]uint64{}, Sent: c.stats.Sent.Load()}
	for i := range c.stats.Frames {
		tier := shm.Tier(i).String()
		cs.Frames[tier] = c.stats.Frames[i].Load()
		cs.Copied[tier] = c.stats.Bytes[i].Load()
	}
	cs.Frames["dmabuf"] = c.stats.DMABuf.Load()
	if why := c.stats.Why.Load(); why != nil {
		cs.Why = *why
	}
	return cs
}

// StatusPath returns where the status of a display can be read.
func StatusPath(display string) string { return display + ".status" }

// ServeStatus answers who connects to the status socket until ctx ends.
func (s *Server) ServeStatus(ctx context.Context, display string) error {
	path := StatusPath(display)
	_ = os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("status socket: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("status socket: %w", err)
		}
		_ = c.SetDeadline(time.Now().Add(time.Second))
		_ = json.NewEncoder(c).Encode(s.Status(display))
		_ = c.Close()
	}
}

// ReadStatus asks the server of a display.
func ReadStatus(ctx context.Context, display string) (Status, error) {
	var st Status
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", StatusPath(display))
	if err != nil {
		return st, fmt.Errorf("no gpubroker-guest serves %s: %w", display, err)
	}
	defer func() { _ = c.Close() }()
	if err := json.NewDecoder(c).Decode(&st); err != nil {
		return st, fmt.Errorf("status of %s: %w", display, err)
	}
	return st, nil
}

// Write writes the status for people.
func (st *Status) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "display    %s\ntransport  %s\n", st.Display, st.Transport)
	for _, line := range strings.Split(strings.TrimSpace(st.WhyNot), "\n") {
		if line != "" {
			fmt.Fprintf(&b, "           not better: %s\n", line)
		}
	}
	if st.GPU != "" {
		fmt.Fprintf(&b, "GPU        %s\n", st.GPU)
	} else {
		fmt.Fprintf(&b, "GPU        none with 3D\n")
	}
	if st.Import {
		fmt.Fprintf(&b, "wl_shm     without copies (import device)\n")
	} else {
		fmt.Fprintf(&b, "wl_shm     copied: %s\n", st.NoImport)
	}
	fmt.Fprintf(&b, "copied     %s\n", counts(st.Copied))
	fmt.Fprintf(&b, "clients    %d (refused so far: %d)\n", len(st.Clients), st.Refused)
	for _, c := range st.Clients {
		fmt.Fprintf(&b, "\n%s (pid %d)\n", c.Name, c.PID)
		for _, name := range c.Windows {
			fmt.Fprintf(&b, "  window   %s\n", name)
		}
		fmt.Fprintf(&b, "  frames   %s\n  copied   %s\n", counts(c.Frames), counts(c.Copied))
		if c.Why != "" {
			fmt.Fprintf(&b, "  why      %s\n", strings.ReplaceAll(c.Why, "\n", "; "))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// counts writes a map by tier, best first.
func counts(m map[string]uint64) string {
	var parts []string
	for _, tier := range []string{"dmabuf", "import", "blob", "stream"} {
		if n, ok := m[tier]; ok {
			parts = append(parts, fmt.Sprintf("%s %d", tier, n))
		}
	}
	return strings.Join(parts, ", ")
}
