package waylandtest

import (
	"slices"
	"testing"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// Commits returns every commit so far, of all clients, in order.
func (c *Compositor) Commits() []Commit {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.commits)
}

// Frames returns the commits of toplevels that attached a buffer.
func (c *Compositor) Frames() []Commit {
	var out []Commit
	for _, k := range c.Commits() {
		if k.Role == "toplevel" && k.Attached && k.Buffer != nil {
			out = append(out, k)
		}
	}
	return out
}

// WaitFrames waits for at least n such commits and returns them all.
func (c *Compositor) WaitFrames(t testing.TB, n int) []Commit {
	t.Helper()
	Eventually(t, "enough frames committed", func() bool { return len(c.Frames()) >= n })
	return c.Frames()
}

// Violations returns what clients did against the protocol.
func (c *Compositor) Violations() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.violations)
}

// Pointers returns every wl_pointer.set_cursor.
func (c *Compositor) Pointers() []Pointer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.cursors)
}

// Accepted returns how many clients have connected so far.
func (c *Compositor) Accepted() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.accepted
}

// Set changes the behaviour from the next request on.
func (c *Compositor) Set(f func(*Config)) { c.call(func() { f(&c.cfg) }) }

// Freeze makes the compositor neither read nor write, as SIGSTOP does.
func (c *Compositor) Freeze() { c.call(func() { c.frozen = true }) }

// Thaw ends Freeze.
func (c *Compositor) Thaw() { c.call(func() { c.frozen = false }) }

// Kill closes the connections; new ones are accepted.
func (c *Compositor) Kill() {
	c.call(func() {
		for _, cl := range c.clients {
			cl.close()
		}
		c.clients = nil
	})
}

// each runs f for every client and sends what it wrote.
func (c *Compositor) each(f func(cl *client)) {
	c.call(func() {
		for _, cl := range c.clients {
			f(cl)
			_ = cl.conn.Flush()
		}
	})
}

// Release sends the releases that were held back.
func (c *Compositor) Release() {
	c.each(func(cl *client) {
		for _, b := range cl.held {
			cl.sendRelease(b)
		}
		cl.held = nil
	})
}

// Frame sends the frame callbacks that were held back.
func (c *Compositor) Frame() {
	c.each(func(cl *client) {
		for _, id := range cl.callbacks {
			cl.done(id)
		}
		cl.callbacks = nil
	})
}

// Configure sends every toplevel a configure event.
func (c *Compositor) Configure() {
	c.each(func(cl *client) {
		for _, s := range cl.surfaces() {
			if s.toplevel != 0 {
				cl.configure(s)
			}
		}
	})
}

// CloseWindows asks every toplevel to close, as a user does.
func (c *Compositor) CloseWindows() {
	c.each(func(cl *client) {
		for _, s := range cl.surfaces() {
			if s.toplevel != 0 {
				proto.XdgToplevel(s.toplevel).SendClose(&cl.conn.Out)
			}
		}
	})
}

// Ping sends xdg_wm_base.ping with a serial; the client's pongs are in Pongs.
func (c *Compositor) Ping(serial uint32) {
	c.each(func(cl *client) {
		if cl.wmBase != 0 {
			proto.XdgWmBase(cl.wmBase).SendPing(&cl.conn.Out, serial)
		}
	})
}

// Pongs returns the serials that clients answered.
func (c *Compositor) Pongs() (out []uint32) {
	c.each(func(cl *client) { out = append(out, cl.pongs...) })
	return out
}

// Enter moves the pointer over the first toplevel.
func (c *Compositor) Enter(serial uint32) {
	c.each(func(cl *client) {
		for _, s := range cl.surfaces() {
			if s.toplevel != 0 && cl.pointer != 0 {
				proto.WlPointer(cl.pointer).SendEnter(&cl.conn.Out, serial, proto.WlSurface(s.id), 0, 0)
				return
			}
		}
	})
}

// Offer replaces the dma-buf layouts and tells clients of version 4 and up.
func (c *Compositor) Offer(layouts []Layout) {
	c.call(func() { c.cfg.Layouts = layouts })
	c.each(func(cl *client) { cl.sendFeedback() })
}

// SendRaw sends bytes to every client as they are.
func (c *Compositor) SendRaw(b []byte) {
	c.each(func(cl *client) { cl.raw(b) })
}

// Buffers returns how many wl_buffers clients have now.
func (c *Compositor) Buffers() (n int) {
	c.each(func(cl *client) {
		for _, o := range cl.objects {
			if o.iface == proto.IWlBuffer {
				n++
			}
		}
	})
	return n
}

// HighestID returns the highest id that a client has made so far.
func (c *Compositor) HighestID() (id uint32) {
	c.call(func() {
		for _, cl := range c.clients {
			id = max(id, uint32(cl.highest))
		}
	})
	return id
}

// Toplevels returns how many windows clients have now.
func (c *Compositor) Toplevels() (n int) {
	c.each(func(cl *client) {
		for _, o := range cl.objects {
			if o.iface == proto.IXdgToplevel {
				n++
			}
		}
	})
	return n
}

// displayError ends a client's connection with wl_display.error.
func (cl *client) displayError(id wire.ID, code uint32, text string) {
	proto.WlDisplay(wire.DisplayID).SendError(&cl.conn.Out, id, code, text)
	_ = cl.conn.Flush()
	cl.dead = true
}
