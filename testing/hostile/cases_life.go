package hostile

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
)

func layouts(l ...vhostusertest.Layout) []vhostusertest.Layout { return l }

// lifeCases start, stop and leave in odd orders, and give wrong descriptors.
func lifeCases() []Case {
	life := func(name string, end End, do func(v *VM) error) Case {
		return Case{Group: "life", Name: name, End: end, Do: do}
	}
	return []Case{
		life("100 resets", Answers, func(v *VM) error {
			for range 100 {
				if err := v.Reload(); err != nil {
					return err
				}
			}
			return nil
		}),
		life("100 stops", Answers, func(v *VM) error {
			for range 100 {
				if err := errors.Join(v.Stop(), v.Cont()); err != nil {
					return err
				}
			}
			return nil
		}),
		life("stop with a full ring, and go on", Answers, func(v *VM) error {
			var ops []*fakeguest.Op
			for range 200 {
				op, err := v.Ctrl.Submit(withFlags(bare(virtiogpu.CmdGetDisplayInfo, 0), virtiogpu.FlagFence, 1, 0), 512)
				if err != nil {
					return err
				}
				ops = append(ops, op)
			}
			if err := errors.Join(v.Stop(), v.Cont()); err != nil {
				return err
			}
			return waitAll(v, ops)
		}),
		life("disable and enable while commands come", Answers, func(v *VM) error {
			for i := range 200 {
				op, err := v.Ctrl.Submit(bare(virtiogpu.CmdGetDisplayInfo, 0), 512)
				if err != nil {
					return err
				}
				for on := range uint32(2) {
					if err := v.FE.Request(vhostuser.ReqSetVringEnable, vringState(0, on)); err != nil {
						return err
					}
				}
				if err := v.Ctrl.RingKick(); err != nil {
					return err
				}
				if _, err := v.wait(v.Ctrl, op); err != nil {
					return fmt.Errorf("command %d: %w", i, err)
				}
			}
			return nil
		}),
		life("RESET_DEVICE under a running ring", Reloads, func(v *VM) error {
			return errors.Join(state2D(v), v.FE.Request(vhostuser.ReqResetDevice, nil))
		}),
		life("RESET_OWNER under a running ring", Reloads, func(v *VM) error { return v.FE.Request(vhostuser.ReqResetOwner, nil) }),
		life("GET_VRING_BASE twice", Reloads, func(v *VM) error {
			for range 2 {
				if err := v.FE.SendRaw(rawMessage(uint32(vhostuser.ReqGetVringBase), 1, vringState(0, 0))); err != nil {
					return err
				}
			}
			return errStream
		}),
		life("SET_FEATURES while it runs", Reloads, func(v *VM) error {
			return v.FE.Request(vhostuser.ReqSetFeatures, u64(v.FE.Offered()&^(1<<virtiogpu.FeatureVirgl|1<<virtiogpu.FeatureResourceBlob)))
		}),
		life("all memory away while it runs", Reloads, func(v *VM) error {
			if err := state2D(v); err != nil {
				return err
			}
			r := v.RAM.Regions[0]
			if err := v.FE.Request(vhostuser.ReqRemMemReg, vhostuser.AppendSingleRegion(nil, r)); err != nil {
				return err
			}
			if err := v.Ctrl.RingKick(); err != nil {
				return err
			}
			time.Sleep(2 * time.Millisecond)
			return v.FE.Request(vhostuser.ReqAddMemReg, vhostuser.AppendSingleRegion(nil, r), v.RAM.FD)
		}),
		life("memory away under a picture, then a transfer from it", Answers, backingAway),
		life("512 memory regions and more", Answers, func(v *VM) error {
			fd, err := dmabuf.NewMemfd("hostile", 1<<20)
			if err != nil {
				return err
			}
			defer func() { _ = fd.Close() }()
			var status *vhostusertest.StatusError
			for i := range uint64(600) {
				err := v.FE.Request(vhostuser.ReqAddMemReg, region(1<<40+i*8192, 4096, 1<<50+i*8192, 0), fd)
				if err != nil && !errors.As(err, &status) {
					return err
				}
			}
			if status == nil {
				return errors.New("600 regions were taken")
			}
			return nil
		}),
		life("the same memory a hundred times", Answers, func(v *VM) error {
			for i := range uint64(100) {
				if err := v.FE.Request(vhostuser.ReqAddMemReg, region(1<<40+i<<30, ramSize, 1<<50+i<<30, 0), v.RAM.FD); err != nil {
					return err
				}
			}
			return nil
		}),
		life("a descriptor for memory that is a pipe", Answers, func(v *VM) error { return oddMemory(v, pipeEnd) }),
		life("a descriptor for memory that is an eventfd", Answers, func(v *VM) error { return oddMemory(v, eventFD) }),
		life("a descriptor for memory that is read-only", Answers, func(v *VM) error { return oddMemory(v, readOnlyFile) }),
		life("100 backend channels", Answers, func(v *VM) error {
			for range 100 {
				ours, theirs, err := vhostusertest.Pair()
				if err != nil {
					return err
				}
				err = v.FE.Request(vhostuser.ReqSetBackendReqFD, nil, theirs)
				_ = theirs.Close()
				_ = ours.Close()
				if err != nil {
					return err
				}
			}
			return nil
		}),
		life("100 display sockets", Answers, func(v *VM) error {
			for range 100 {
				ours, theirs, err := vhostusertest.Pair()
				if err != nil {
					return err
				}
				err = v.FE.Request(vhostuser.ReqGPUSetSocket, nil, theirs)
				_ = theirs.Close()
				_ = ours.Close()
				if err != nil {
					return err
				}
			}
			return nil
		}),
		life("no kick at all", Reloads, func(v *VM) error { return v.FE.Request(vhostuser.ReqSetVringKick, vringFD(0, true)) }),
		life("a kick that is a file", AnyEnd, func(v *VM) error { return oddVring(v, vhostuser.ReqSetVringKick, memoryFile) }),
		life("a kick that is a pipe without a writer", AnyEnd, func(v *VM) error { return oddVring(v, vhostuser.ReqSetVringKick, pipeEnd) }),
		life("a kick that blocks, and another reader", AnyEnd, blockingKick),
		life("a call that is a full pipe", AnyEnd, func(v *VM) error { return oddVring(v, vhostuser.ReqSetVringCall, fullPipe) }),
		life("a call that is a full eventfd that blocks", AnyEnd, func(v *VM) error { return oddVring(v, vhostuser.ReqSetVringCall, fullEvent) }),
		life("a call that is a pipe without a reader", AnyEnd, func(v *VM) error { return oddVring(v, vhostuser.ReqSetVringCall, brokenPipe) }),
		life("an error eventfd that is full and blocks", AnyEnd, func(v *VM) error {
			if err := oddVring(v, vhostuser.ReqSetVringErr, fullEvent); err != nil {
				return err
			}
			v.Ctrl.SetDesc(0, 1<<46, 16, 0, 0)
			v.Ctrl.PushAvail(0)
			return v.Ctrl.RingKick()
		}),
		life("a front-end that never reads its replies", Dropped, func(v *VM) error {
			for range 20000 {
				if err := v.FE.SendRaw(rawMessage(uint32(vhostuser.ReqGetFeatures), 1, nil)); err != nil {
					break
				}
			}
			v.Quit()
			return nil
		}),
		life("a second front-end that waits", Answers, secondFrontend),
		life("memory that can shrink, and does", AnyEnd, shrinkingMemory),
	}
}

// errStream says that the case has spoilt the front-end's own view of the stream:
// this connection is of no more use.
var errStream = errors.New("the front-end gives up its connection")

// backingAway removes memory that a resource has as its backing.
func backingAway(v *VM) error {
	fd, err := dmabuf.NewMemfd("more ram", 1<<20)
	if err != nil {
		return err
	}
	defer func() { _ = fd.Close() }()
	const at = 1 << 40
	more := region(at, 1<<20, 1<<50, 0)
	if err := v.FE.Request(vhostuser.ReqAddMemReg, more, fd); err != nil {
		return err
	}
	if err := v.OK(create2D(77, bgra, resW, resH), attach(77, 1, virtiogpu.MemEntry{Addr: at, Length: resBytes})); err != nil {
		return err
	}
	if v.gl {
		if err := v.OK(create3D(texture(78, resW, resH)), attach(78, 1, virtiogpu.MemEntry{Addr: at, Length: resBytes})); err != nil {
			return err
		}
	}
	if err := v.FE.Request(vhostuser.ReqRemMemReg, more); err != nil {
		return err
	}
	cmds := [][]byte{transfer2D(77, whole, 0), scanout(0, 77, whole), flush(77, whole)}
	if v.gl {
		cmds = append(cmds, transfer3D(virtiogpu.CmdTransferToHost3D, virtiogpu.TransferHost3D{ResourceID: 78, Box: virtiogpu.Box{W: resW, H: resH, D: 1}}),
			transfer3D(virtiogpu.CmdTransferFromHost3D, virtiogpu.TransferHost3D{ResourceID: 78, Box: virtiogpu.Box{W: resW, H: resH, D: 1}}))
	}
	return v.Try(append(cmds, attach(77, 1, virtiogpu.MemEntry{Addr: at, Length: 4096}), detach(77), unref(77))...)
}

func oddMemory(v *VM, open func() (*dmabuf.FD, error)) error {
	fd, err := open()
	if err != nil {
		return err
	}
	defer func() { _ = fd.Close() }()
	var status *vhostusertest.StatusError
	if err := v.FE.Request(vhostuser.ReqAddMemReg, region(1<<40, 4096, 1<<50, 0), fd); err != nil && !errors.As(err, &status) {
		return err
	}
	return v.Try(create2D(77, bgra, 8, 8), attach(77, 1, virtiogpu.MemEntry{Addr: 1 << 40, Length: 4096}), transfer2D(77, rect(0, 0, 8, 8), 0))
}

// oddVring gives ring 0 a descriptor that is not what it should be, then sends
// commands. The ring may stop working; the broker may not.
func oddVring(v *VM, req vhostuser.Request, open func() (*dmabuf.FD, error)) error {
	fd, err := open()
	if err != nil {
		return err
	}
	defer func() { _ = fd.Close() }()
	var status *vhostusertest.StatusError
	if err := v.FE.Request(req, vringFD(0, false), fd); err != nil && !errors.As(err, &status) {
		return err
	}
	if _, err := v.Ctrl.Submit(bare(virtiogpu.CmdGetDisplayInfo, 0), 512); err != nil {
		return err
	}
	if err := v.Ctrl.RingKick(); err != nil {
		return err
	}
	time.Sleep(20 * time.Millisecond)
	return v.FE.Sync() // the render thread must not be stuck
}

func pipeEnd() (*dmabuf.FD, error) {
	r, w, err := pipeFDs()
	if err == nil {
		_ = w.Close()
	}
	return r, err
}

func brokenPipe() (*dmabuf.FD, error) {
	r, w, err := pipeFDs()
	if err == nil {
		_ = r.Close()
	}
	return w, err
}

// fullPipe is a blocking pipe without room; its other end stays open in itself.
func fullPipe() (*dmabuf.FD, error) {
	pair, other, err := vhostusertest.Pair()
	if err != nil {
		return nil, err
	}
	_ = unix.SetNonblock(pair.Int(), true)
	for err = nil; err == nil; {
		_, err = unix.Write(pair.Int(), make([]byte, 4096))
	}
	_ = unix.SetNonblock(pair.Int(), false)
	// The reader lives as long as the message in flight that holds it.
	_ = unix.Sendmsg(other.Int(), []byte{0}, unix.UnixRights(other.Int()), nil, unix.MSG_DONTWAIT)
	_ = other.Close()
	return pair, nil
}

func eventFD() (*dmabuf.FD, error) {
	raw, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return dmabuf.NewFD(raw, "eventfd"), nil
}

func fullEvent() (*dmabuf.FD, error) {
	fd, err := eventFD()
	if err != nil {
		return nil, err
	}
	_, err = unix.Write(fd.Int(), []byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	return fd, err
}

func memoryFile() (*dmabuf.FD, error) { return dmabuf.NewMemfd("hostile", 1<<20) }

func readOnlyFile() (*dmabuf.FD, error) {
	fd, err := memoryFile()
	if err != nil {
		return nil, err
	}
	defer func() { _ = fd.Close() }()
	raw, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd.Int()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open read-only: %w", err)
	}
	return dmabuf.NewFD(raw, "read-only memfd"), nil
}

// blockingKick races the broker for what it polled: the loser would wait for ever
// in a read of a blocking eventfd.
func blockingKick(v *VM) error {
	fd, err := eventFD()
	if err != nil {
		return err
	}
	defer func() { _ = fd.Close() }()
	var status *vhostusertest.StatusError
	if err := v.FE.Request(vhostuser.ReqSetVringKick, vringFD(0, false), fd); errors.As(err, &status) {
		return nil // refused
	} else if err != nil {
		return err
	}
	poll := []unix.PollFd{{Fd: int32(fd.Int()), Events: unix.POLLIN}}
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		_, _ = unix.Write(fd.Int(), []byte{1, 0, 0, 0, 0, 0, 0, 0})
		if n, _ := unix.Poll(poll, 0); n == 1 {
			var b [8]byte
			done := make(chan struct{})
			go func() { _, _ = unix.Read(fd.Int(), b[:]); close(done) }()
			for waiting := true; waiting; { // the broker may be faster, again and again
				select {
				case <-done:
					waiting = false
				case <-time.After(time.Millisecond):
					_, _ = unix.Write(fd.Int(), []byte{1, 0, 0, 0, 0, 0, 0, 0})
				}
			}
		}
	}
	return v.FE.Sync()
}

// secondFrontend connects while the first is served: it waits, whatever it says.
func secondFrontend(v *VM) error {
	for i := range 20 {
		sock, err := vhostusertest.Dial(v.socket)
		if err != nil {
			return err
		}
		if i%2 == 0 {
			_, _ = unix.Write(sock.Int(), []byte("GET / HTTP/1.1\r\n\r\n"))
		}
		if err := v.OK(bare(virtiogpu.CmdGetDisplayInfo, 0)); err != nil {
			_ = sock.Close()
			return err
		}
		_ = sock.Close()
	}
	return nil
}

// shrinkingMemory takes guest memory away under 2D commands: the file is not
// sealed and becomes shorter. (3D commands on such memory: see docs/security.md.)
func shrinkingMemory(v *VM) error {
	fd, err := shrinkable()
	if err != nil {
		return err
	}
	defer func() { _ = fd.Close() }()
	const at = 1 << 40
	if err := v.FE.Request(vhostuser.ReqAddMemReg, region(at, 1<<20, 1<<50, 0), fd); err != nil {
		return err
	}
	if err := v.OK(create2D(77, bgra, resW, resH), attach(77, 1, virtiogpu.MemEntry{Addr: at, Length: resBytes})); err != nil {
		return err
	}
	if err := unix.Ftruncate(fd.Int(), 0); err != nil {
		return fmt.Errorf("ftruncate: %w", err)
	}
	return v.Try(transfer2D(77, whole, 0), scanout(0, 77, whole), flush(77, whole), unref(77))
}

// shrinkable is a file that nobody can seal.
func shrinkable() (*dmabuf.FD, error) {
	raw, err := unix.MemfdCreate("no seals", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	fd := dmabuf.NewFD(raw, "no seals")
	if err := unix.Ftruncate(raw, 1<<20); err != nil {
		_ = fd.Close()
		return nil, fmt.Errorf("ftruncate: %w", err)
	}
	return fd, nil
}
