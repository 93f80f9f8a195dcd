package hostile

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Payloads.

func vringState(i, n uint32) []byte { return vhostuser.VringState{Index: i, Num: n}.Append(nil) }
func u64(v uint64) []byte           { return vhostuser.AppendU64(nil, v) }
func vringFD(i uint8, no bool) []byte {
	return vhostuser.VringFD{Index: i, NoFD: no}.Append(nil)
}

func region(gpa, size, user, off uint64) []byte {
	return vhostuser.AppendSingleRegion(nil, vhostuser.MemRegion{GPA: gpa, Size: size, UserAddr: user, MmapOffset: off})
}

func vringAddr(i uint32, desc, avail, used uint64) []byte {
	return vhostuser.VringAddr{Index: i, Desc: desc, Avail: avail, Used: used}.Append(nil)
}

func configSpace(off, size uint32, data int) []byte {
	p := vhostuser.ConfigSpace{Offset: off, Data: make([]byte, data)}.Append(nil)
	binary.LittleEndian.PutUint32(p[4:], size)
	return p
}

// memTable has room for its regions, told to be n.
func memTable(n uint32, regions ...vhostuser.MemRegion) []byte {
	var t vhostuser.MemTable
	t.N = copy(t.Regions[:], regions)
	p := t.Append(nil)
	binary.LittleEndian.PutUint32(p, n)
	return p
}

// rawMessage is a message with any header.
func rawMessage(req, flags uint32, payload []byte) []byte {
	p := binary.LittleEndian.AppendUint32(nil, req)
	p = binary.LittleEndian.AppendUint32(p, flags)
	p = binary.LittleEndian.AppendUint32(p, uint32(len(payload)))
	return append(p, payload...)
}

// message is a row of the tables below.
type message struct {
	name    string
	req     vhostuser.Request
	payload []byte
	fds     int // memfds that go with it
}

// refused are messages that fail, after which the VM goes on as if they had not
// been.
var refused = []message{
	{"unknown request 0", 0, nil, 0},
	{"unknown request 45", 45, nil, 0},
	{"unknown request all ones", 0xffffffff, nil, 0},
	{"unknown request with 4096 bytes and 16 descriptors", 100, make([]byte, 4096), 16},
	{"SET_LOG_BASE", vhostuser.ReqSetLogBase, make([]byte, 16), 1},
	{"SET_LOG_FD", vhostuser.ReqSetLogFD, nil, 1},
	{"SET_INFLIGHT_FD", vhostuser.ReqSetInflightFD, make([]byte, 24), 1},
	{"SET_STATUS", vhostuser.ReqSetStatus, u64(1), 0},
	{"SET_FEATURES short", vhostuser.ReqSetFeatures, make([]byte, 7), 0},
	{"SET_FEATURES long", vhostuser.ReqSetFeatures, make([]byte, 9), 0},
	{"SET_FEATURES with a descriptor", vhostuser.ReqSetFeatures, u64(0), 1},
	{"SET_OWNER with payload", vhostuser.ReqSetOwner, u64(0), 0},
	{"SET_PROTOCOL_FEATURES of all ones", vhostuser.ReqSetProtocolFeatures, u64(^uint64(0)), 0},
	{"SET_MEM_TABLE empty", vhostuser.ReqSetMemTable, nil, 0},
	{"SET_MEM_TABLE with 9 regions", vhostuser.ReqSetMemTable, memTable(9), 0},
	{"SET_MEM_TABLE with all ones regions", vhostuser.ReqSetMemTable, memTable(0xffffffff), 0},
	{"SET_MEM_TABLE with fewer regions than told", vhostuser.ReqSetMemTable, memTable(2, vhostuser.MemRegion{Size: 4096}), 2},
	{"SET_MEM_TABLE with a descriptor missing", vhostuser.ReqSetMemTable, memTable(1, vhostuser.MemRegion{Size: 4096}), 0},
	{"SET_MEM_TABLE with a descriptor too many", vhostuser.ReqSetMemTable, memTable(1, vhostuser.MemRegion{Size: 4096}), 2},
	{"SET_MEM_TABLE that overlaps", vhostuser.ReqSetMemTable, memTable(2, vhostuser.MemRegion{Size: 8192}, vhostuser.MemRegion{GPA: 4096, Size: 4096, UserAddr: 1 << 30}), 2},
	{"SET_MEM_TABLE beyond the file", vhostuser.ReqSetMemTable, memTable(1, vhostuser.MemRegion{Size: 2 << 20}), 1},
	{"SET_MEM_TABLE that wraps", vhostuser.ReqSetMemTable, memTable(1, vhostuser.MemRegion{GPA: ^uint64(0) - 100, Size: 4096}), 1},
	{"SET_MEM_TABLE whose user address wraps", vhostuser.ReqSetMemTable, memTable(1, vhostuser.MemRegion{Size: 4096, UserAddr: ^uint64(0) - 100}), 1},
	{"SET_MEM_TABLE whose offset wraps", vhostuser.ReqSetMemTable, memTable(1, vhostuser.MemRegion{Size: 8192, MmapOffset: ^uint64(0) - 4095}), 1},
	{"ADD_MEM_REG without a descriptor", vhostuser.ReqAddMemReg, region(1<<40, 4096, 0, 0), 0},
	{"ADD_MEM_REG with two", vhostuser.ReqAddMemReg, region(1<<40, 4096, 0, 0), 2},
	{"ADD_MEM_REG of no bytes", vhostuser.ReqAddMemReg, region(1<<40, 0, 0, 0), 1},
	{"ADD_MEM_REG of 2^60 bytes", vhostuser.ReqAddMemReg, region(1<<40, 1<<60, 0, 0), 1},
	{"ADD_MEM_REG of all ones", vhostuser.ReqAddMemReg, region(^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)), 1},
	{"ADD_MEM_REG at offset 2^60", vhostuser.ReqAddMemReg, region(1<<40, 4096, 0, 1<<60), 1},
	{"ADD_MEM_REG over RAM", vhostuser.ReqAddMemReg, region(4096, 4096, 0, 0), 1},
	{"REM_MEM_REG of what is not there", vhostuser.ReqRemMemReg, region(1<<40, 4096, 0, 0), 0},
	{"REM_MEM_REG of a part of RAM", vhostuser.ReqRemMemReg, region(0, 4096, 0x7f1234000000, 0), 0},
	{"SET_VRING_NUM of ring 2", vhostuser.ReqSetVringNum, vringState(2, 16), 0},
	{"SET_VRING_NUM of ring all ones", vhostuser.ReqSetVringNum, vringState(0xffffffff, 16), 0},
	{"SET_VRING_NUM 0", vhostuser.ReqSetVringNum, vringState(0, 0), 0},
	{"SET_VRING_NUM 3", vhostuser.ReqSetVringNum, vringState(0, 3), 0},
	{"SET_VRING_NUM 65536", vhostuser.ReqSetVringNum, vringState(0, 65536), 0},
	{"SET_VRING_NUM all ones", vhostuser.ReqSetVringNum, vringState(0, 0xffffffff), 0},
	{"SET_VRING_NUM of a running ring", vhostuser.ReqSetVringNum, vringState(0, 32), 0},
	{"SET_VRING_BASE 65536", vhostuser.ReqSetVringBase, vringState(0, 65536), 0},
	{"SET_VRING_BASE of a running ring", vhostuser.ReqSetVringBase, vringState(0, 5), 0},
	{"SET_VRING_ADDR of ring 7", vhostuser.ReqSetVringAddr, vringAddr(7, 0, 0, 0), 0},
	{"SET_VRING_ADDR short", vhostuser.ReqSetVringAddr, make([]byte, 39), 0},
	{"SET_VRING_ADDR outside of memory", vhostuser.ReqSetVringAddr, vringAddr(0, 1, 1, 1), 0},
	{"SET_VRING_ADDR of all ones", vhostuser.ReqSetVringAddr, vringAddr(0, ^uint64(0), ^uint64(0), ^uint64(0)), 0},
	{"SET_VRING_ADDR at the end of memory", vhostuser.ReqSetVringAddr, vringAddr(0, 0x7f1234000000+ramSize-16, 0x7f1234000000, 0x7f1234000000), 0},
	{"SET_VRING_ADDR that is not aligned", vhostuser.ReqSetVringAddr, vringAddr(0, 0x7f1234001001, 0x7f1234002001, 0x7f1234003003), 0},
	{"SET_VRING_KICK of ring 255", vhostuser.ReqSetVringKick, vringFD(255, false), 1},
	{"SET_VRING_KICK without its descriptor", vhostuser.ReqSetVringKick, vringFD(0, false), 0},
	{"SET_VRING_KICK with one too many", vhostuser.ReqSetVringKick, vringFD(0, true), 1},
	{"SET_VRING_KICK with two", vhostuser.ReqSetVringKick, vringFD(0, false), 2},
	{"SET_VRING_CALL without its descriptor", vhostuser.ReqSetVringCall, vringFD(0, false), 0},
	{"SET_VRING_ERR of ring 9", vhostuser.ReqSetVringErr, vringFD(9, false), 1},
	{"SET_VRING_ENABLE 2", vhostuser.ReqSetVringEnable, vringState(0, 2), 0},
	{"SET_VRING_ENABLE of ring 2", vhostuser.ReqSetVringEnable, vringState(2, 1), 0},
	{"SET_CONFIG beyond the space", vhostuser.ReqSetConfig, configSpace(250, 10, 10), 0},
	{"SET_CONFIG at all ones", vhostuser.ReqSetConfig, configSpace(0xfffffffe, 4, 4), 0},
	{"SET_CONFIG that lies about its size", vhostuser.ReqSetConfig, configSpace(0, 8, 4), 0},
	{"SET_CONFIG short", vhostuser.ReqSetConfig, make([]byte, 11), 0},
	{"GPU_SET_SOCKET without one", vhostuser.ReqGPUSetSocket, nil, 0},
	{"GPU_SET_SOCKET with two", vhostuser.ReqGPUSetSocket, nil, 2},
	{"SET_BACKEND_REQ_FD without one", vhostuser.ReqSetBackendReqFD, nil, 0},
	{"SET_BACKEND_REQ_FD with a file", vhostuser.ReqSetBackendReqFD, nil, 1},
	{"RESET_DEVICE with payload", vhostuser.ReqResetDevice, u64(0), 0},
}

// breaking are bytes after which the stream means nothing, or a question that
// cannot be answered: the broker hangs up.
var breaking = []struct {
	name  string
	bytes []byte
	fds   int
	close bool // then the front-end closes its end
}{
	{"version 0", rawMessage(1, 0, nil), 0, false},
	{"version 2", rawMessage(1, 2, nil), 0, false},
	{"a reply to nothing", rawMessage(1, 5, u64(0)), 0, false},
	{"a payload of 4097 bytes", rawMessage(5, 1, make([]byte, 4097)), 0, false},
	{"a payload of 4 GiB", append(rawMessage(5, 1, nil)[:8], 0xff, 0xff, 0xff, 0xff), 0, false},
	{"17 descriptors", rawMessage(3, 1, nil), 17, false},
	{"250 descriptors", rawMessage(3, 1, nil), 250, false},
	{"half a header, then the end", rawMessage(1, 1, nil)[:6], 0, true},
	{"half a header with descriptors, then the end", rawMessage(1, 1, nil)[:6], 3, true},
	{"a header without its payload, then the end", rawMessage(5, 1, make([]byte, 8))[:12], 2, true},
	{"half a payload with descriptors, then the end", rawMessage(5, 1, make([]byte, 8))[:16], 2, true},
	{"GET_FEATURES with payload", rawMessage(1, 1, u64(0)), 0, false},
	{"GET_VRING_BASE of ring 2", rawMessage(11, 1, vringState(2, 0)), 0, false},
	{"GET_VRING_BASE short", rawMessage(11, 1, make([]byte, 4)), 0, false},
	{"GET_CONFIG short", rawMessage(24, 1, make([]byte, 4)), 0, false},
	{"SET_FEATURES of all ones", rawMessage(2, 1, u64(^uint64(0))), 0, false},
	{"HTTP", []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), 0, false},
	{"64 KiB of ones", repeatByte(0xff, 64<<10), 0, false},
}

func repeatByte(b byte, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = b
	}
	return p
}

func messageCases() []Case {
	var out []Case
	for _, m := range refused {
		out = append(out, Case{Group: "message", Name: m.name, Do: m.refused})
	}
	for _, b := range breaking {
		out = append(out, Case{Group: "message", Name: b.name, End: Dropped, Do: func(v *VM) error {
			return withMemfds(b.fds, func(fds []*dmabuf.FD) error {
				_ = v.FE.SendRaw(b.bytes, fds...) // may fail half way: the broker hangs up
				if b.close {
					v.Quit()
				}
				return nil
			})
		}})
	}
	for _, r := range [][2]uint32{{0, 0}, {0, 256}, {255, 1}, {256, 0}, {0, 257}, {255, 2}, {0xffffffff, 1}, {0xffffffff, 0xffffffff}, {16, 240}} {
		out = append(out, Case{Group: "message", Name: fmt.Sprintf("GET_CONFIG of %d bytes at %d", r[1], r[0]), End: AnyEnd, Do: func(v *VM) error {
			return v.FE.SendRaw(rawMessage(uint32(vhostuser.ReqGetConfig), 1, configSpace(r[0], r[1], int(min(r[1], 256)))))
		}})
	}
	for _, m := range []message{{"GET_INFLIGHT_FD, not offered", vhostuser.ReqGetInflightFD, make([]byte, 24), 0},
		{"GET_STATUS, not offered", vhostuser.ReqGetStatus, nil, 0}} {
		out = append(out, Case{Group: "message", Name: m.name, Do: func(v *VM) error { return m.send(v, 1) }})
	}
	for _, p := range []*vhostusertest.Profile{&vhostusertest.Bare, &vhostusertest.QEMU72A} {
		out = append(out, Case{Group: "message", Name: "every refused message to " + p.Name, Mode: p, Do: func(v *VM) error {
			for _, m := range refused {
				if err := m.send(v, 1); err != nil {
					return err
				}
			}
			return v.FE.Sync()
		}})
	}
	return out
}

// refused sends the message with a demand for a status and without.
func (m *message) refused(v *VM) error {
	return withMemfds(m.fds, func(fds []*dmabuf.FD) error {
		var status *vhostusertest.StatusError
		if err := v.FE.Request(m.req, m.payload, fds...); !errors.As(err, &status) {
			return fmt.Errorf("answered with %v, want a failed status", err)
		}
		return v.FE.SendRaw(rawMessage(uint32(m.req), 1, m.payload), fds...)
	})
}

func (m *message) send(v *VM, flags uint32) error {
	return withMemfds(m.fds, func(fds []*dmabuf.FD) error {
		return v.FE.SendRaw(rawMessage(uint32(m.req), flags, m.payload), fds...)
	})
}

// withMemfds makes n descriptors of one memfd of 1 MiB for the time of f.
func withMemfds(n int, f func([]*dmabuf.FD) error) error {
	if n == 0 {
		return f(nil)
	}
	fd, err := dmabuf.NewMemfd("hostile", 1<<20)
	if err != nil {
		return err
	}
	defer func() { _ = fd.Close() }()
	fds := make([]*dmabuf.FD, n)
	for i := range fds {
		fds[i] = fd
	}
	return f(fds)
}

func pipeFDs() (r, w *dmabuf.FD, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	return dmabuf.NewFD(p[0], "pipe, read end"), dmabuf.NewFD(p[1], "pipe, write end"), nil
}
