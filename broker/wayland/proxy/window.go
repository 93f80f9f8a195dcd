package proxy

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
)

// window is the data of an xdg_toplevel.
type window struct {
	surface    *surface
	app, title string
	frames     [tiers]uint64
	bytes      uint64
	why        string
}

func (w *window) free(c *client) {
	c.windows = slices.DeleteFunc(c.windows, func(o *window) bool { return o == w })
	if w.surface != nil && w.surface.window == w {
		w.surface.window = nil
	}
}

// shell is the data of an xdg_surface.
type shell struct{ surface *surface }

func getSubsurface(c *client, m *message) error {
	s, parent := m.refs[1].data.(*surface), m.refs[2].data.(*surface)
	if !parent.below(s) {
		s.parent = parent
	}
	return c.forward(m)
}

// below reports whether s stands below o in the tree of surfaces, or is o.
func (s *surface) below(o *surface) bool {
	for ; s != nil; s = s.parent {
		if s == o {
			return true
		}
	}
	return false
}

func getXdgSurface(c *client, m *message) error {
	m.refs[0].data = &shell{m.refs[1].data.(*surface)}
	return c.forward(m)
}

func getToplevel(c *client, m *message) error {
	w := &window{surface: m.obj.data.(*shell).surface}
	m.refs[0].data = w
	w.surface.window = w
	c.windows = append(c.windows, w)
	if err := c.forward(m); err != nil {
		return err
	}
	// Windows that say nothing of themselves are marked, too.
	top, p := proto.XdgToplevel(m.refs[0].host), c.p.policy
	if p.TitlePrefix != "" {
		top.SetTitle(&c.conn.Out, tagged(p.TitlePrefix, ""))
	}
	if p.AppIDPrefix != "" {
		top.SetAppId(&c.conn.Out, tagged(p.AppIDPrefix, ""))
	}
	return c.conn.Out.Err()
}

func getPopup(c *client, m *message) error {
	if parent := m.refs[1]; parent != nil {
		s, p := m.obj.data.(*shell).surface, parent.data.(*shell).surface
		if !p.below(s) {
			s.parent = p
		}
	}
	return c.forward(m)
}

// maxTitle bounds titles and app ids with their prefixes, in bytes.
const maxTitle = 1024

// tagged puts a prefix before what a client calls itself and makes it fit.
func tagged(prefix, s string) string {
	s = prefix + strings.ToValidUTF8(s, "\uFFFD")
	for len(s) > maxTitle {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}

func setTitle(c *client, m *message) error {
	w := m.obj.data.(*window)
	w.title = tagged("", string(m.bytes(0)))
	proto.XdgToplevel(m.obj.host).SetTitle(&c.conn.Out, tagged(c.p.policy.TitlePrefix, w.title))
	return c.conn.Out.Err()
}

func setAppID(c *client, m *message) error {
	w := m.obj.data.(*window)
	w.app = tagged("", string(m.bytes(0)))
	proto.XdgToplevel(m.obj.host).SetAppId(&c.conn.Out, tagged(c.p.policy.AppIDPrefix, w.app))
	return c.conn.Out.Err()
}

// count adds a frame to the window that a surface belongs to.
func (c *client) count(s *surface, b *buffer) {
	n := b.fresh
	b.fresh = 0
	for ; s != nil; s = s.parent {
		if w := s.window; w != nil {
			w.frames[b.tier]++
			w.bytes += n
			w.why = b.why
			return
		}
	}
}

// appendWindows describes the client's windows.
func (c *client) appendWindows(out []WindowStats) []WindowStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.windows {
		frames := make(map[string]uint64, tiers)
		for i, n := range w.frames {
			frames[tierNames[i]] = n
		}
		out = append(out, WindowStats{App: w.app, Title: w.title, Client: c.dialect.Name, Transport: c.dialect.Transport,
			Frames: frames, BytesCopied: w.bytes, Why: w.why})
	}
	return out
}
