// Command crossguest is a Wayland client in a guest that speaks cross-domain by
// itself, as sommelier and its like do: it shows a window whose memory the host made,
// prints what it saw, and stays until it is killed.
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/crossdomain"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Size of the window in pixels.
const (
	width  = 320
	height = 200
)

const (
	memGuest  = 1
	memHost3D = 2
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "crossguest:", err)
		os.Exit(1)
	}
}

var le = binary.LittleEndian

func run() error {
	d, err := open()
	if err != nil {
		return err
	}
	caps := make([]byte, crossdomain.SizeCapset)
	if err := d.caps(crossdomain.CapsetID, caps); err != nil {
		return err
	}
	fmt.Printf("capset %x\n", caps)
	if err := d.contextInit(contextParam{1, crossdomain.CapsetID}, contextParam{2, 2}, contextParam{3, 1 << crossdomain.RingChannel}); err != nil {
		return err
	}
	c := &client{d: d, globals: map[string]uint32{}}
	query, queryMem, err := d.blob(memGuest, os.Getpagesize(), 0)
	if err != nil {
		return err
	}
	channel, mem, err := d.blob(memGuest, os.Getpagesize(), 0)
	if err != nil {
		return err
	}
	c.ring = mem
	if err := d.exec(command(crossdomain.CmdInit, crossdomain.SizeInit, query.res, channel.res, uint32(crossdomain.ChannelWayland)), -1); err != nil {
		return err
	}
	// Memory for the picture.
	ask := command(crossdomain.CmdGetImageRequirements, crossdomain.SizeImageQuery, width, height, uint32(dmabuf.XRGB8888), 0x11)
	if err := d.exec(ask, crossdomain.RingQuery, query.handle); err != nil {
		return err
	}
	if err := d.wait(query.handle); err != nil {
		return err
	}
	stride, size, id := le.Uint32(queryMem), le.Uint64(queryMem[40:]), le.Uint32(queryMem[48:])
	fmt.Printf("image: stride %d, %d bytes, blob_id %d\n", stride, size, id)
	image, pixels, err := d.blob(memHost3D, int(size), uint64(id))
	if err != nil {
		return err
	}
	for y := range height {
		for x := range width {
			le.PutUint32(pixels[y*int(stride)+4*x:], uint32(x*255/width)<<16|uint32(y*255/height)<<8|0x40)
		}
	}
	return c.show(image.res, stride, size)
}

// open finds the render node that has cross-domain contexts.
func open() (drm, error) {
	nodes, err := filepath.Glob("/dev/dri/renderD*")
	if err != nil {
		return drm{}, err
	}
	for _, node := range nodes {
		f, err := os.OpenFile(node, os.O_RDWR, 0)
		if err != nil {
			return drm{}, err
		}
		d := drm{f}
		if ids, err := d.param(7); err == nil && ids>>crossdomain.CapsetID&1 != 0 { // SUPPORTED_CAPSET_IDs
			return d, nil
		}
		_ = f.Close()
	}
	return drm{}, fmt.Errorf("none of %q has capability set %d", nodes, crossdomain.CapsetID)
}

// command encodes a command with words from offset 8 on.
func command(c crossdomain.Cmd, size int, fields ...uint32) []byte {
	p := make([]byte, size)
	p[0] = byte(c)
	le.PutUint16(p[2:], uint16(size))
	for i, f := range fields {
		le.PutUint32(p[8+4*i:], f)
	}
	return p
}

type client struct {
	d       drm
	ring    []byte
	in      []byte
	out     wire.Writer
	globals map[string]uint32
	serial  uint32
	synced  bool
	failed  string
}

// Objects of the client.
const (
	objDisplay = iota + 1
	objRegistry
	objCompositor
	objShm
	objWM
	objSurface
	objXdg
	objTop
	objPool
	objBuffer
	objSync
)

// flush sends what was written, with resources in the places of descriptors.
func (c *client) flush(res ...uint32) error {
	data := c.out.Unsent()
	p := command(crossdomain.CmdSend, crossdomain.SizeSendReceive, uint32(len(res)), uint32(len(data)))
	le.PutUint16(p[2:], uint16(len(p)+len(data)))
	for i, r := range res {
		le.PutUint32(p[16+4*i:], r)
		le.PutUint32(p[128+4*i:], uint32(crossdomain.IDBlob))
	}
	err := c.d.exec(append(p, data...), -1)
	c.out.Reset()
	return err
}

// until takes messages until f is true.
func (c *client) until(f func() bool) error {
	for !f() {
		if err := c.d.exec(command(crossdomain.CmdPoll, crossdomain.SizePoll), crossdomain.RingChannel); err != nil {
			return err
		}
		var event [1024]byte
		if _, err := unix.Read(int(c.d.f.Fd()), event[:]); err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		if le.Uint32(event[:]) != 0x90000000 { // VIRTGPU_EVENT_FENCE_SIGNALED
			return fmt.Errorf("event %#x", le.Uint32(event[:]))
		}
		n := le.Uint32(c.ring[12:])
		if crossdomain.Cmd(c.ring[0]) != crossdomain.CmdReceive || n == 0 {
			return fmt.Errorf("the channel ended: %s", c.failed)
		}
		c.in = append(c.in, c.ring[crossdomain.SizeSendReceive:][:n]...)
		for len(c.in) >= 8 && len(c.in) >= int(le.Uint32(c.in[4:])>>16) {
			word := le.Uint32(c.in[4:])
			c.event(wire.Message{Object: wire.ID(le.Uint32(c.in)), Opcode: uint16(word), Body: c.in[8 : word>>16]})
			c.in = c.in[word>>16:]
		}
		if c.failed != "" {
			return fmt.Errorf("the compositor says: %s", c.failed)
		}
	}
	return nil
}

func (c *client) event(m wire.Message) {
	d := m.Decoder()
	switch {
	case m.Object == objRegistry && m.Opcode == 0:
		name := d.Uint()
		iface := d.String()
		c.globals[iface] = name
		fmt.Println("global", iface, d.Uint())
	case m.Object == objXdg && m.Opcode == 0:
		c.serial = d.Uint()
	case m.Object == objSync:
		c.synced = true
	case m.Object == objDisplay && m.Opcode == 0:
		d.Uint()
		d.Uint()
		c.failed = d.String()
	}
}

// show makes the window and stays.
func (c *client) show(res, stride uint32, size uint64) error {
	out := &c.out
	proto.WlDisplay(objDisplay).GetRegistry(out, objRegistry)
	if err := c.flush(); err != nil {
		return err
	}
	if err := c.until(func() bool {
		return c.globals["wl_compositor"] != 0 && c.globals["wl_shm"] != 0 && c.globals["xdg_wm_base"] != 0
	}); err != nil {
		return err
	}
	reg := proto.WlRegistry(objRegistry)
	reg.Bind(out, c.globals["wl_compositor"], "wl_compositor", 4, objCompositor)
	reg.Bind(out, c.globals["wl_shm"], "wl_shm", 1, objShm)
	reg.Bind(out, c.globals["xdg_wm_base"], "xdg_wm_base", 1, objWM)
	proto.WlCompositor(objCompositor).CreateSurface(out, objSurface)
	proto.XdgWmBase(objWM).GetXdgSurface(out, objXdg, objSurface)
	proto.XdgSurface(objXdg).GetToplevel(out, objTop)
	proto.XdgToplevel(objTop).SetTitle(out, "crossguest")
	proto.XdgToplevel(objTop).SetAppId(out, "org.gpubroker.crossguest")
	proto.WlSurface(objSurface).Commit(out)
	if err := c.flush(); err != nil {
		return err
	}
	if err := c.until(func() bool { return c.serial != 0 }); err != nil {
		return err
	}
	proto.XdgSurface(objXdg).AckConfigure(out, c.serial)
	// The descriptor of create_pool is an identifier; its bytes are without it.
	out.Begin(objShm, proto.OpWlShmCreatePool)
	out.Object(objPool)
	out.Int(int32(size))
	out.End()
	proto.WlShmPool(objPool).CreateBuffer(out, objBuffer, 0, width, height, int32(stride), proto.WlShmFormatXrgb8888)
	proto.WlSurface(objSurface).Attach(out, objBuffer, 0, 0)
	proto.WlSurface(objSurface).DamageBuffer(out, 0, 0, width, height)
	proto.WlSurface(objSurface).Commit(out)
	proto.WlDisplay(objDisplay).Sync(out, objSync)
	if err := c.flush(res); err != nil {
		return err
	}
	if err := c.until(func() bool { return c.synced }); err != nil {
		return err
	}
	fmt.Println("shown")
	return c.until(func() bool { return false })
}
