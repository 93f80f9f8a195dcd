package vhostuser_test

import (
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

func state(i, n uint32) []byte { return vhostuser.VringState{Index: i, Num: n}.Append(nil) }
func u64(v uint64) []byte      { return vhostuser.AppendU64(nil, v) }
func vringFD(i uint8, no bool) []byte {
	return vhostuser.VringFD{Index: i, NoFD: no}.Append(nil)
}

func region(gpa, size, user, off uint64) []byte {
	return vhostuser.AppendSingleRegion(nil, vhostuser.MemRegion{GPA: gpa, Size: size, UserAddr: user, MmapOffset: off})
}

func addr(i uint32, desc, avail, used uint64) []byte {
	return vhostuser.VringAddr{Index: i, Desc: desc, Avail: avail, Used: used}.Append(nil)
}

func config(off, size uint32, data int) []byte {
	p := vhostuser.ConfigSpace{Offset: off, Data: make([]byte, data)}.Append(nil)
	binary.LittleEndian.PutUint32(p[4:], size)
	return p
}

func table(n uint32, regions ...vhostuser.MemRegion) []byte {
	t := vhostuser.MemTable{N: copy((&vhostuser.MemTable{}).Regions[:], regions)}
	copy(t.Regions[:], regions)
	p := t.Append(nil)
	binary.LittleEndian.PutUint32(p, n)
	return p
}

// refused are messages that must be answered with a failure, after which the
// connection goes on. fds is how many descriptors come along.
var refused = []struct {
	name    string
	req     vhostuser.Request
	payload []byte
	fds     int
}{
	{"unknown request 0", 0, nil, 0},
	{"unknown request 19", 19, nil, 0},
	{"unknown request 45", 45, nil, 0},
	{"unknown request huge", 0xffffffff, nil, 0},
	{"unknown with payload and fds", 100, make([]byte, 4096), 16},
	{"SET_LOG_BASE not offered", vhostuser.ReqSetLogBase, make([]byte, 16), 1},
	{"SET_INFLIGHT_FD not offered", vhostuser.ReqSetInflightFD, make([]byte, 24), 1},
	{"SET_STATUS not offered", vhostuser.ReqSetStatus, u64(1), 0},
	{"GET_STATUS not offered", vhostuser.ReqGetStatus, nil, 0},
	{"SET_FEATURES short", vhostuser.ReqSetFeatures, make([]byte, 7), 0},
	{"SET_FEATURES long", vhostuser.ReqSetFeatures, make([]byte, 9), 0},
	{"SET_FEATURES with fd", vhostuser.ReqSetFeatures, u64(0), 1},
	{"SET_OWNER with payload", vhostuser.ReqSetOwner, u64(0), 0},
	{"SET_PROTOCOL_FEATURES not offered", vhostuser.ReqSetProtocolFeatures, u64(1 << 21), 0},
	{"SET_MEM_TABLE empty payload", vhostuser.ReqSetMemTable, nil, 0},
	{"SET_MEM_TABLE 9 regions", vhostuser.ReqSetMemTable, table(9), 0},
	{"SET_MEM_TABLE huge count", vhostuser.ReqSetMemTable, table(0xffffffff), 0},
	{"SET_MEM_TABLE count without regions", vhostuser.ReqSetMemTable, table(2, vhostuser.MemRegion{Size: 4096}), 2},
	{"SET_MEM_TABLE too few fds", vhostuser.ReqSetMemTable, table(1, vhostuser.MemRegion{Size: 4096}), 0},
	{"SET_MEM_TABLE too many fds", vhostuser.ReqSetMemTable, table(1, vhostuser.MemRegion{Size: 4096}), 2},
	{"SET_MEM_TABLE overlap", vhostuser.ReqSetMemTable, table(2, vhostuser.MemRegion{Size: 8192}, vhostuser.MemRegion{GPA: 4096, Size: 4096}), 2},
	{"SET_MEM_TABLE beyond the file", vhostuser.ReqSetMemTable, table(1, vhostuser.MemRegion{Size: 2 << 20}), 1},
	{"SET_MEM_TABLE overflow", vhostuser.ReqSetMemTable, table(1, vhostuser.MemRegion{GPA: ^uint64(0) - 100, Size: 4096}), 1},
	{"ADD_MEM_REG no fd", vhostuser.ReqAddMemReg, region(0x10000000, 4096, 0, 0), 0},
	{"ADD_MEM_REG two fds", vhostuser.ReqAddMemReg, region(0x10000000, 4096, 0, 0), 2},
	{"ADD_MEM_REG size 0", vhostuser.ReqAddMemReg, region(0x10000000, 0, 0, 0), 1},
	{"ADD_MEM_REG huge", vhostuser.ReqAddMemReg, region(0x10000000, 1<<60, 0, 0), 1},
	{"ADD_MEM_REG huge offset", vhostuser.ReqAddMemReg, region(0x10000000, 4096, 0, 1<<60), 1},
	{"ADD_MEM_REG overlap", vhostuser.ReqAddMemReg, region(0, 4096, 0, 0), 1},
	{"REM_MEM_REG unknown", vhostuser.ReqRemMemReg, region(0x10000000, 4096, 0, 0), 0},
	{"REM_MEM_REG unknown with fd", vhostuser.ReqRemMemReg, region(0x10000000, 4096, 0, 0), 1},
	{"SET_VRING_NUM ring 2", vhostuser.ReqSetVringNum, state(2, 16), 0},
	{"SET_VRING_NUM ring huge", vhostuser.ReqSetVringNum, state(0xffffffff, 16), 0},
	{"SET_VRING_NUM 0", vhostuser.ReqSetVringNum, state(0, 0), 0},
	{"SET_VRING_NUM 3", vhostuser.ReqSetVringNum, state(0, 3), 0},
	{"SET_VRING_NUM 65536", vhostuser.ReqSetVringNum, state(0, 65536), 0},
	{"SET_VRING_NUM of a running ring", vhostuser.ReqSetVringNum, state(0, 32), 0},
	{"SET_VRING_BASE too large", vhostuser.ReqSetVringBase, state(0, 65536), 0},
	{"SET_VRING_BASE of a running ring", vhostuser.ReqSetVringBase, state(0, 5), 0},
	{"SET_VRING_BASE ring 2", vhostuser.ReqSetVringBase, state(2, 0), 0},
	{"SET_VRING_ADDR ring 7", vhostuser.ReqSetVringAddr, addr(7, 0, 0, 0), 0},
	{"SET_VRING_ADDR short", vhostuser.ReqSetVringAddr, make([]byte, 39), 0},
	{"SET_VRING_ADDR outside", vhostuser.ReqSetVringAddr, addr(0, 1, 1, 1), 0},
	{"SET_VRING_ADDR overflow", vhostuser.ReqSetVringAddr, addr(0, ^uint64(0), ^uint64(0), ^uint64(0)), 0},
	{"SET_VRING_KICK ring 255", vhostuser.ReqSetVringKick, vringFD(255, false), 1},
	{"SET_VRING_KICK fd missing", vhostuser.ReqSetVringKick, vringFD(0, false), 0},
	{"SET_VRING_KICK fd too much", vhostuser.ReqSetVringKick, vringFD(0, true), 1},
	{"SET_VRING_KICK two fds", vhostuser.ReqSetVringKick, vringFD(0, false), 2},
	{"SET_VRING_KICK not an eventfd", vhostuser.ReqSetVringKick, vringFD(0, false), 1},
	{"SET_VRING_CALL not an eventfd", vhostuser.ReqSetVringCall, vringFD(0, false), 1},
	{"SET_VRING_ERR not an eventfd", vhostuser.ReqSetVringErr, vringFD(1, false), 1},
	{"SET_VRING_CALL fd missing", vhostuser.ReqSetVringCall, vringFD(0, false), 0},
	{"SET_VRING_ERR ring 9", vhostuser.ReqSetVringErr, vringFD(9, false), 1},
	{"SET_VRING_ENABLE 2", vhostuser.ReqSetVringEnable, state(0, 2), 0},
	{"SET_VRING_ENABLE ring 2", vhostuser.ReqSetVringEnable, state(2, 1), 0},
	{"SET_CONFIG beyond", vhostuser.ReqSetConfig, config(250, 10, 10), 0},
	{"SET_CONFIG overflow", vhostuser.ReqSetConfig, config(0xfffffffe, 4, 4), 0},
	{"SET_CONFIG size lies", vhostuser.ReqSetConfig, config(0, 8, 4), 0},
	{"SET_CONFIG header only", vhostuser.ReqSetConfig, make([]byte, 11), 0},
	{"GPU_SET_SOCKET no fd", vhostuser.ReqGPUSetSocket, nil, 0},
	{"GPU_SET_SOCKET two fds", vhostuser.ReqGPUSetSocket, nil, 2},
	{"SET_BACKEND_REQ_FD no fd", vhostuser.ReqSetBackendReqFD, nil, 0},
	{"SET_BACKEND_REQ_FD not a socket", vhostuser.ReqSetBackendReqFD, nil, 1},
	{"RESET_DEVICE with payload", vhostuser.ReqResetDevice, u64(0), 0},
}

// TestRefused sends them one after the other to a running device, with and
// without asking for a status, and looks that rings and descriptors are as before.
func TestRefused(t *testing.T) {
	b := open(t, option{profile: vhostusertest.QEMU10A})
	must(t, b.fe.Init())
	must(t, b.fe.Start(0, b.layout))
	b.events(t)
	fd := memfd(t)
	defer fd.Close()
	before := fdtest.Count(t)
	for _, tt := range refused {
		t.Run(tt.name, func(t *testing.T) {
			fds := make([]*dmabuf.FD, tt.fds)
			for i := range fds {
				fds[i] = fd
			}
			var status *vhostusertest.StatusError
			if err := b.fe.Request(tt.req, tt.payload, fds...); !errors.As(err, &status) {
				t.Errorf("answered with %v, want a failed status", err)
			}
			must(t, b.fe.SendRaw(message(uint32(tt.req), 1, tt.payload), fds...))
			if ev := b.events(t); len(ev) != 0 {
				t.Errorf("the device was told %q", ev)
			}
		})
	}
	if after := fdtest.Count(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
	must(t, b.quit(t))
}

func message(req, flags uint32, payload []byte) []byte {
	p := binary.LittleEndian.AppendUint32(nil, req)
	p = binary.LittleEndian.AppendUint32(p, flags)
	p = binary.LittleEndian.AppendUint32(p, uint32(len(payload)))
	return append(p, payload...)
}

// TestBroken sends what ends the connection: after it the stream means nothing,
// or the front-end waits for an answer that cannot be given.
func TestBroken(t *testing.T) {
	tests := []struct {
		name  string
		bytes []byte
		fds   int
		close bool
		want  error
	}{
		{"version 0", message(1, 0, nil), 0, false, vhostuser.ErrProtocol},
		{"version 2", message(1, 2, nil), 0, false, vhostuser.ErrProtocol},
		{"a reply", message(1, 5, u64(0)), 0, false, vhostuser.ErrProtocol},
		{"payload of 4097 bytes", message(5, 1, make([]byte, 4097)), 0, false, vhostuser.ErrProtocol},
		{"payload of 4 GiB", append(message(5, 1, nil)[:8], 0xff, 0xff, 0xff, 0xff), 0, false, vhostuser.ErrProtocol},
		{"17 descriptors", message(3, 1, nil), 17, false, vhostuser.ErrProtocol},
		{"250 descriptors", message(3, 1, nil), 250, false, vhostuser.ErrProtocol},
		{"half a header", message(1, 1, nil)[:6], 0, true, io.ErrUnexpectedEOF},
		{"half a header with descriptors", message(1, 1, nil)[:6], 3, true, io.ErrUnexpectedEOF},
		{"header without payload", message(5, 1, make([]byte, 8))[:12], 2, true, io.ErrUnexpectedEOF},
		{"half a payload", message(5, 1, make([]byte, 8))[:16], 2, true, io.ErrUnexpectedEOF},
		{"GET_FEATURES with payload", message(1, 1, u64(0)), 0, false, vhostuser.ErrMessage},
		{"GET_VRING_BASE of ring 2", message(11, 1, state(2, 0)), 0, false, vhostuser.ErrMessage},
		{"GET_VRING_BASE short", message(11, 1, make([]byte, 4)), 0, false, vhostuser.ErrMessage},
		{"GET_CONFIG short", message(24, 1, make([]byte, 4)), 0, false, vhostuser.ErrMessage},
		{"random text", []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), 0, false, vhostuser.ErrProtocol},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := open(t, option{profile: vhostusertest.QEMU10A})
			must(t, b.fe.Init())
			must(t, b.fe.Start(0, b.layout))
			fd := memfd(t)
			defer fd.Close()
			fds := make([]*dmabuf.FD, tt.fds)
			for i := range fds {
				fds[i] = fd
			}
			must(t, b.fe.SendRaw(tt.bytes, fds...))
			if tt.close {
				b.fe.Quit()
			}
			if err := b.wait(t); !errors.Is(err, tt.want) {
				t.Errorf("Serve: %v, want %v", err, tt.want)
			}
			b.fe.Quit()
		})
	}
}

// TestFDsInPayload sends descriptors with a later byte than the first.
func TestFDsInPayload(t *testing.T) {
	b := open(t, option{profile: vhostusertest.QEMU10A})
	must(t, b.fe.Init())
	fd := memfd(t)
	defer fd.Close()
	m := message(2, 1, u64(0))
	must(t, b.fe.SendRaw(m[:12]))
	must(t, b.fe.SendRaw(m[12:], fd))
	if err := b.wait(t); !errors.Is(err, vhostuser.ErrProtocol) {
		t.Errorf("Serve: %v", err)
	}
	b.fe.Quit()
}

// TestSplitMessages sends good messages a byte at a time.
func TestSplitMessages(t *testing.T) {
	b := open(t, option{profile: vhostusertest.QEMU10A})
	must(t, b.fe.Init())
	fd := memfd(t)
	defer fd.Close()
	m := message(uint32(vhostuser.ReqAddMemReg), 1, region(0x4000_0000, 4096, 0x9000_0000, 4096))
	must(t, b.fe.SendRaw(m[:1], fd))
	for i := range m[1:] {
		must(t, b.fe.SendRaw(m[1+i:2+i]))
	}
	must(t, b.fe.Request(vhostuser.ReqRemMemReg, region(0x4000_0000, 4096, 0x9000_0000, 4096)))
	must(t, b.quit(t))
}

// FuzzSession feeds a running back-end with any messages and descriptors.
func FuzzSession(f *testing.F) {
	chunk := func(fds byte, m []byte) []byte { return append([]byte{fds, byte(len(m))}, m...) }
	var all []byte
	for _, tt := range refused {
		if len(tt.payload) < 200 {
			c := chunk(byte(tt.fds), message(uint32(tt.req), 1, tt.payload))
			f.Add(c)
			all = append(all, c...)
		}
	}
	f.Add(all)
	for _, req := range []vhostuser.Request{
		vhostuser.ReqGetFeatures, vhostuser.ReqGetProtocolFeatures, vhostuser.ReqGetQueueNum, vhostuser.ReqGetMaxMemSlots,
		vhostuser.ReqGetShmemConfig, vhostuser.ReqResetDevice, vhostuser.ReqResetOwner,
	} {
		f.Add(chunk(0, message(uint32(req), 1, nil)))
	}
	f.Add(append(chunk(0, message(11, 1, state(0, 0))), chunk(0, message(11, 1, state(1, 0)))...))
	f.Add(append(chunk(0, message(2, 1, u64(1<<29))), chunk(1, message(12, 1, vringFD(0, false)))...))
	f.Add(chunk(0, message(12, 9, vringFD(0, true))))
	f.Add(chunk(0, message(24, 1, config(0, 16, 16))))
	f.Add([]byte{17, 200})
	f.Fuzz(func(t *testing.T, data []byte) {
		b := open(t, option{profile: vhostusertest.QEMU72A, quiet: true})
		must(t, b.fe.Init())
		must(t, b.fe.Start(0, b.layout))
		fd := memfd(t)
		defer fd.Close()
		for sent := 0; len(data) >= 2 && sent < 60<<10; sent += 300 { // the socket's buffer must not fill up
			fds := make([]*dmabuf.FD, data[0]%20)
			for i := range fds {
				fds[i] = fd
			}
			n := min(int(data[1]), len(data)-2)
			if err := b.fe.SendRaw(data[2:2+n], fds...); n > 0 && err != nil {
				break // the back-end has hung up
			}
			data = data[2+n:]
		}
		b.fe.Quit()
		_ = b.wait(t)
	})
}
