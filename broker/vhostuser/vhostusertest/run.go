package vhostusertest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Start is what happens when the driver sets DRIVER_OK: features and memory go
// over, then the rings. Rings start at index 0, or, after Stop without Reset, go on
// where they were.
func (f *Frontend) Start(driver uint64, layout []Layout) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.started {
		return errors.New("vhostusertest: started already")
	}
	f.driver, f.layout = driver, layout
	return f.start()
}

func (f *Frontend) start() error {
	if f.cfg.Profile.DisplaySocket {
		if err := f.sendDisplay(); err != nil {
			return err
		}
	}
	if err := f.maskAll(); err != nil {
		return err
	}
	// The bit is between front-end and back-end; the driver never sees it.
	bits := f.driver&^vhostuser.FProtocolFeatures | f.cfg.Profile.ForcedBits
	if f.proto != 0 {
		bits |= vhostuser.FProtocolFeatures
	}
	if err := f.set(false, vhostuser.ReqSetFeatures, vhostuser.AppendU64(nil, bits)); err != nil {
		return err
	}
	if err := f.syncMemory(); err != nil {
		return err
	}
	// From here on QEMU's device knows that it runs.
	f.started = true
	for i, l := range f.layout {
		if err := f.startRing(i, l); err != nil {
			return fmt.Errorf("ring %d: %w", i, err)
		}
	}
	if err := f.enable(1); err != nil {
		return err
	}
	for i := range f.layout {
		if err := f.vringFD(vhostuser.ReqSetVringCall, i, f.rings[i].call); err != nil {
			return err
		}
		if f.cfg.Profile.KickAtStart {
			if err := writeEvent(f.rings[i].kick); err != nil {
				return err
			}
		}
	}
	return nil
}

// sendDisplay makes a new socket pair for the display, as each start does.
func (f *Frontend) sendDisplay() error {
	ours, theirs, err := Pair()
	if err != nil {
		return err
	}
	defer func() { _ = theirs.Close() }()
	_ = f.display.Close()
	f.display = ours
	return f.set(false, vhostuser.ReqGPUSetSocket, nil, theirs)
}

// TakeDisplay passes the ownership of QEMU's end of the display socket to the
// caller; nil if there is none. A front-end that still has it at the next stop
// closes it.
func (f *Frontend) TakeDisplay() *dmabuf.FD {
	f.mu.Lock()
	defer f.mu.Unlock()
	fd := f.display
	f.display = nil
	return fd
}

func (f *Frontend) startRing(i int, l Layout) error {
	r := &f.rings[i]
	var err error
	if r.kick, err = newEvent(); err != nil {
		return err
	}
	for _, step := range f.cfg.Order {
		switch step {
		case StepNum:
			err = f.set(false, vhostuser.ReqSetVringNum, vhostuser.VringState{Index: uint32(i), Num: uint32(l.Size)}.Append(nil))
		case StepBase:
			err = f.set(false, vhostuser.ReqSetVringBase, vhostuser.VringState{Index: uint32(i), Num: uint32(r.base)}.Append(nil))
		case StepAddr:
			err = f.set(false, vhostuser.ReqSetVringAddr, f.addr(i, l).Append(nil))
		case StepKick:
			err = f.vringFD(vhostuser.ReqSetVringKick, i, r.kick)
		case StepCall:
			err = f.vringFD(vhostuser.ReqSetVringCall, i, r.masked)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *Frontend) addr(i int, l Layout) vhostuser.VringAddr {
	ram := f.cfg.RAM
	return vhostuser.VringAddr{Index: uint32(i), Desc: ram.UserAddr(l.Desc), Avail: ram.UserAddr(l.Avail), Used: ram.UserAddr(l.Used)}
}

func (f *Frontend) enable(on uint32) error {
	if f.proto == 0 {
		return nil // not negotiated: rings are always enabled
	}
	for i := range f.layout {
		st := vhostuser.VringState{Index: uint32(i), Num: on}
		if err := f.set(f.cfg.Profile.EnableWaits, vhostuser.ReqSetVringEnable, st.Append(nil)); err != nil {
			return err
		}
	}
	return nil
}

// Stop is vm stop, and the first half of a reset and of a shutdown.
func (f *Frontend) Stop() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stop()
}

func (f *Frontend) stop() error {
	if !f.started {
		return nil
	}
	if f.cfg.Profile.DisplaySocket {
		_ = f.display.Close()
		f.display = nil
	}
	if err := f.enable(0); err != nil {
		return err
	}
	for i := range f.layout {
		r := &f.rings[i]
		p, err := f.roundTrip(vhostuser.ReqGetVringBase, 0, vhostuser.VringState{Index: uint32(i)}.Append(nil))
		if err != nil {
			return err
		}
		st, err := vhostuser.DecodeVringState(p)
		if err != nil {
			return err
		}
		if st.Index != uint32(i) || st.Num > 0xffff {
			return fmt.Errorf("GET_VRING_BASE of ring %d answered with %+v", i, st)
		}
		r.base = uint16(st.Num)
		f.checkFlags(r.kick)
		_, _ = readEvent(r.kick) // QEMU clears its notifier; a blocking read hung it once
		_ = r.kick.Close()
		r.kick = nil
	}
	f.started = false // a request on the back-end channel crashes QEMU from now on
	return f.maskAll()
}

// maskAll sends interrupts to the masked notifiers, before a start and after a
// stop.
func (f *Frontend) maskAll() error {
	if f.cfg.Profile.CallInRing {
		return nil
	}
	for i := range f.layout {
		if err := f.vringFD(vhostuser.ReqSetVringCall, i, f.rings[i].masked); err != nil {
			return err
		}
	}
	return nil
}

// resetDevice sends RESET_DEVICE if it was negotiated.
func (f *Frontend) resetDevice() error {
	if f.proto&vhostuser.ProtoResetDevice == 0 {
		return nil
	}
	return f.set(false, vhostuser.ReqResetDevice, nil)
}

// Cont is the end of vm stop.
func (f *Frontend) Cont() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.started {
		return nil
	}
	return f.start()
}

// Reset is a virtio reset: the driver is unloaded, the guest reboots, or the
// firmware hands over. The guest's side has to clear its rings.
func (f *Frontend) Reset() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.stop(); err != nil {
		return err
	}
	if f.cfg.Profile.ResetDevice {
		for range 2 { // a reboot sends several
			if err := f.resetDevice(); err != nil {
				return err
			}
		}
	}
	for i := range f.rings {
		f.rings[i].base = 0
	}
	f.dropMaps()
	return nil
}

// Base returns where a ring stood when it was stopped last.
func (f *Frontend) Base(ring int) uint16 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rings[ring].base
}

// Mask moves a ring's interrupts to the masked notifier or back, as the guest's
// changes of MSI-X do.
func (f *Frontend) Mask(ring int, masked bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	fd := f.rings[ring].call
	if masked {
		fd = f.rings[ring].masked
	}
	return f.vringFD(vhostuser.ReqSetVringCall, ring, fd)
}

// KickFD is the ring's kick eventfd, borrowed until the next Stop; nil while
// stopped.
func (f *Frontend) KickFD(ring int) *dmabuf.FD {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rings[ring].kick
}

// CallFD is the eventfd that interrupts the guest, borrowed until Quit.
func (f *Frontend) CallFD(ring int) *dmabuf.FD { return f.rings[ring].call }

// ErrFD is the eventfd for ring errors, borrowed until Quit.
func (f *Frontend) ErrFD(ring int) *dmabuf.FD { return f.rings[ring].errfd }

// Kick writes to the ring's kick eventfd.
func (f *Frontend) Kick(ring int) error {
	fd := f.KickFD(ring)
	if fd == nil {
		return errors.New("vhostusertest: kick of a stopped ring")
	}
	return writeEvent(fd)
}

// WaitCall waits for an interrupt of the ring and clears it. It reports false
// after the timeout.
func (f *Frontend) WaitCall(ring int, timeout time.Duration) (bool, error) {
	return waitEvent(f.CallFD(ring), timeout)
}

// syncMemory brings the back-end's memory up to date with RAM and mappings: the
// difference as ADD_MEM_REG and REM_MEM_REG, or the whole table. A back-end may
// refuse a region: while the device runs QEMU prints that, sends nothing further
// and tries again at the next change; at a start it gives up.
func (f *Frontend) syncMemory() error {
	want, fds := f.regions()
	if f.proto&vhostuser.ProtoConfigureMemSlots == 0 {
		if len(want) > 8 {
			return fmt.Errorf("%d regions, a table holds 8", len(want))
		}
		t := vhostuser.MemTable{N: len(want)}
		copy(t.Regions[:], want)
		return f.set(true, vhostuser.ReqSetMemTable, t.Append(nil), fds...)
	}
	if uint64(len(want)) > f.slots {
		f.problem("%d memory regions, %d slots: QEMU aborts", len(want), f.slots)
	}
	for _, r := range slices.Clone(f.sent) {
		if slices.Contains(want, r) {
			continue
		}
		if slices.Contains(f.stale, r) {
			f.problem("region %#x+%#x went at a reset while the back-end had it: QEMU 11.1 crashes at the next start", r.GPA, r.Size)
		}
		if err := f.set(true, vhostuser.ReqRemMemReg, vhostuser.AppendSingleRegion(nil, r)); err != nil {
			return err
		}
		f.sent = slices.DeleteFunc(f.sent, func(s vhostuser.MemRegion) bool { return s == r })
	}
	f.stale = nil
	for i, r := range want {
		if slices.Contains(f.sent, r) {
			continue
		}
		err := f.set(true, vhostuser.ReqAddMemReg, vhostuser.AppendSingleRegion(nil, r), fds[i])
		if status := (*StatusError)(nil); f.started && errors.As(err, &status) {
			return nil
		}
		if err != nil {
			return err
		}
		f.sent = append(f.sent, r)
	}
	return nil
}

func (f *Frontend) regions() (regions []vhostuser.MemRegion, fds []*dmabuf.FD) {
	for _, r := range f.cfg.RAM.Regions {
		regions, fds = append(regions, r), append(fds, f.cfg.RAM.FD)
	}
	for i := range f.maps {
		regions, fds = append(regions, f.maps[i].region()), append(fds, f.maps[i].fd)
	}
	return regions, fds
}

// UpdateMemory sends the changes that a test made to RAM.Regions, as QEMU does
// while the device runs.
func (f *Frontend) UpdateMemory() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.started {
		return nil // goes over at the next start
	}
	return f.syncMemory()
}

func writeEvent(fd *dmabuf.FD) error {
	one := [8]byte{1}
	_, err := unix.Write(fd.Int(), one[:])
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("write eventfd: %w", err)
	}
	return nil
}

func readEvent(fd *dmabuf.FD) (bool, error) {
	var b [8]byte
	_, err := unix.Read(fd.Int(), b[:])
	if errors.Is(err, unix.EAGAIN) {
		return false, nil
	}
	return err == nil, err
}

func waitEvent(fd *dmabuf.FD, timeout time.Duration) (bool, error) {
	for end := time.Now().Add(timeout); ; {
		p := [1]unix.PollFd{{Fd: int32(fd.Int()), Events: unix.POLLIN}}
		n, err := unix.Poll(p[:], int(max(time.Until(end), 0)/time.Millisecond))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return false, fmt.Errorf("poll: %w", err)
		case n == 0:
			return false, nil
		}
		if ok, err := readEvent(fd); ok || err != nil {
			return ok, err
		}
	}
}
