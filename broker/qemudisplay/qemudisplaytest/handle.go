package qemudisplaytest

import (
	"encoding/binary"
	"fmt"
	"net"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// kind is a message: its name and exact payload size, -1 if it varies.
type kind struct {
	name string
	size int
}

var kinds = map[uint32]kind{
	1:  {"GET_PROTOCOL_FEATURES", 0},
	2:  {"SET_PROTOCOL_FEATURES", 8},
	3:  {"GET_DISPLAY_INFO", 0},
	4:  {"CURSOR_POS", 12},
	5:  {"CURSOR_POS_HIDE", 12},
	6:  {"CURSOR_UPDATE", 16404},
	7:  {"SCANOUT", 12},
	8:  {"UPDATE", -1},
	9:  {"DMABUF_SCANOUT", 40},
	10: {"DMABUF_UPDATE", 20},
	11: {"GET_EDID", 4},
	12: {"DMABUF_SCANOUT2", 48},
}

// handle does what QEMU does with a message; false ends the connection.
func (q *QEMU) handle(c *net.UnixConn, m *message) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	k, ok := kinds[m.req]
	if !ok {
		return q.crashLocked("unhandled message %d", m.req)
	}
	q.count[k.name]++
	if k.size >= 0 && len(m.payload) != k.size {
		return q.crashLocked("%s with %d bytes, want %d", k.name, len(m.payload), k.size)
	}
	if m.fd != nil && m.req != 9 && m.req != 12 {
		return q.crashLocked("%s with a descriptor", k.name)
	}
	w := func(i int) uint32 { return binary.NativeEndian.Uint32(m.payload[4*i:]) }
	var s *scanout
	if len(m.payload) >= 4 && m.req > 3 {
		if int(w(0)) >= len(q.heads) {
			q.errs = append(q.errs, fmt.Sprintf("%s: invalid scanout: %d", k.name, w(0)))
			return true
		}
		s = &q.heads[w(0)]
	}
	switch m.req {
	case 1:
		return q.reply(c, 1, binary.NativeEndian.AppendUint64(nil, q.o.Features))
	case 2:
		if got := binary.NativeEndian.Uint64(m.payload); got&^q.o.Features != 0 {
			return q.crashLocked("SET_PROTOCOL_FEATURES %#x, offered %#x", got, q.o.Features)
		}
	case 3:
		return q.mute || q.reply(c, 3, q.info())
	case 4, 5, 6:
		s.pointer.Visible, s.pointer.X, s.pointer.Y = m.req != 5, w(1), w(2)
		if m.req == 6 {
			s.pointer.HotX, s.pointer.HotY = w(3), w(4)
			s.pointer.Pixels = m.payload[20:]
		}
	case 7:
		return q.scanout(s, w(1), w(2))
	case 8:
		if len(m.payload) < 20 {
			return q.crashLocked("UPDATE with %d bytes, want 20", len(m.payload))
		}
		return q.update(s, [4]uint32{w(1), w(2), w(3), w(4)}, m.payload[20:])
	case 9, 12:
		return q.dmabufScanout(s, m, w)
	case 10:
		return q.dmabufUpdate(c, s, [4]uint32{w(1), w(2), w(3), w(4)})
	case 11:
		if q.o.Features&FeatureEDID == 0 {
			return q.crashLocked("GET_EDID of a QEMU without")
		}
		return q.reply(c, 11, q.edid(int(w(0))))
	}
	return true
}

func (q *QEMU) reply(c *net.UnixConn, req uint32, payload []byte) bool {
	var h [12]byte
	binary.NativeEndian.PutUint32(h[0:], req)
	binary.NativeEndian.PutUint32(h[4:], 4)
	binary.NativeEndian.PutUint32(h[8:], uint32(len(payload)))
	_, err := c.Write(append(h[:], payload...))
	return err == nil
}

// info is virtio_gpu_resp_display_info.
func (q *QEMU) info() []byte {
	p := make([]byte, 408)
	binary.LittleEndian.PutUint32(p, 0x1101)
	for i := range q.o.Heads {
		if m := q.modes[i]; m[0] != 0 {
			at := p[24+24*i:]
			binary.LittleEndian.PutUint32(at[8:], m[0])
			binary.LittleEndian.PutUint32(at[12:], m[1])
			binary.LittleEndian.PutUint32(at[16:], 1)
		}
	}
	return p
}

// edid is virtio_gpu_resp_edid.
func (q *QEMU) edid(head int) []byte {
	data := minimalEDID()
	if q.o.EDID != nil {
		data = q.o.EDID(head)
	}
	p := make([]byte, 1056)
	binary.LittleEndian.PutUint32(p, 0x1104)
	binary.LittleEndian.PutUint32(p[24:], 1024) // the room, not the EDID's size
	copy(p[32:], data)
	return p
}

// minimalEDID is a block with the header, version 1.4 and a right checksum.
func minimalEDID() []byte {
	b := make([]byte, 128)
	copy(b, "\x00\xff\xff\xff\xff\xff\xff\x00")
	b[18], b[19] = 1, 4
	var sum byte
	for _, v := range b {
		sum += v
	}
	b[127] = -sum
	return b
}

func (q *QEMU) scanout(s *scanout, w, h uint32) bool {
	if w == 0 {
		// dpy_gfx_replace_surface(con, NULL) frees ds if it is shown.
		if s.shown {
			s.ds = nil
		}
		s.shown = false
		return true
	}
	// A new surface that is shown with the next UPDATE.
	s.ds, s.dsW, s.dsH = make([]byte, int(w)*int(h)*4), w, h
	s.shown = false
	return true
}

func (q *QEMU) update(s *scanout, r [4]uint32, data []byte) bool {
	x, y, w, h := int(r[0]), int(r[1]), int(r[2]), int(r[3])
	if s.ds == nil {
		return q.crashLocked("UPDATE without a surface")
	}
	if s.gl && s.shown {
		return q.crashLocked("UPDATE of the surface that was shown before the dma-buf")
	}
	if len(data) != w*h*4 || w == 0 || h == 0 {
		return q.crashLocked("UPDATE of %dx%d with %d bytes of pixels", w, h, len(data))
	}
	if x+w > int(s.dsW) || y+h > int(s.dsH) {
		return q.crashLocked("UPDATE of %dx%d+%d+%d in %dx%d", w, h, x, y, s.dsW, s.dsH)
	}
	for i := range h {
		copy(s.ds[((y+i)*int(s.dsW)+x)*4:], data[i*w*4:(i+1)*w*4])
	}
	s.shown, s.gl = true, false
	s.note(r)
	return true
}

func (s *scanout) note(r [4]uint32) {
	s.Updates++
	s.LastX, s.LastY, s.LastW, s.LastH = r[0], r[1], r[2], r[3]
}

func (q *QEMU) dmabufScanout(s *scanout, m *message, w func(int) uint32) bool {
	_ = s.fd.Close()
	s.fd = nil
	s.Scanout = Scanout{Updates: s.Updates}
	if m.fd == nil {
		if m.req == 12 {
			return q.crashLocked("DMABUF_SCANOUT2 without a descriptor")
		}
		return true // the console has no surface until one replaces it: gl stays
	}
	if m.req == 12 && q.o.Features&FeatureDMABuf2 == 0 {
		return q.crashLocked("DMABUF_SCANOUT2 to a QEMU without")
	}
	s.DMABuf, s.gl = true, true
	s.W, s.H = w(3), w(4)
	s.FDWidth, s.FDHeight, s.FDStride, s.FDFlags, s.Fourcc = w(5), w(6), w(7), w(8), w(9)
	if m.req == 12 {
		s.HasModifier, s.Modifier = true, binary.NativeEndian.Uint64(m.payload[40:])
	}
	s.fd, m.fd = m.fd, (*dmabuf.FD)(nil)
	return true
}

func (q *QEMU) dmabufUpdate(c *net.UnixConn, s *scanout, r [4]uint32) bool {
	if q.o.NoDisplay {
		q.errs = append(q.errs, "console doesn't support GL!")
		return q.reply(c, 10, nil)
	}
	s.note(r)
	for q.block && q.acks == 0 && q.conn == c { // reads nothing meanwhile
		q.wake.Wait()
	}
	if q.acks > 0 {
		q.acks--
	}
	return q.conn != c || q.reply(c, 10, nil)
}
