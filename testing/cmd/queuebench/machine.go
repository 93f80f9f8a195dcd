package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
)

// ramSize is the guests' memory: room for a 4K picture and ten thousand pages beside.
const ramSize = 128 << 20

// atLeast is how many frames are measured, however long they take.
const atLeast = 4

// inFlight is how many commands are under way in a burst.
const inFlight = 64

// machine is a back-end with the guest that drives it and, in mode A, its display.
type machine struct {
	*fakeguest.Guest
	proc *process
	disp *display

	resp  [virtiogpu.SizeEDID]byte
	ops   [inFlight]*fakeguest.Op
	times []time.Duration
}

// boot starts a back-end and a guest on it.
func (l lineup) boot(name string) (*machine, error) {
	p, sock, err := l.dial(name)
	if err != nil {
		return nil, err
	}
	m, err := connect(p, sock)
	if err != nil {
		err = p.explain(err)
		p.stop()
		return nil, err
	}
	return m, nil
}

func (m *machine) quit() {
	m.Quit()
	if m.disp != nil {
		m.disp.close()
	}
	m.proc.stop()
}

// do sends a command and checks that its answer is no error.
func (m *machine) do(cmd []byte) error {
	n, err := m.Do(cmd, m.resp[:])
	if err != nil {
		return err
	}
	return m.check(cmd, n)
}

func (m *machine) all(cmds ...[]byte) error {
	for _, cmd := range cmds {
		if err := m.do(cmd); err != nil {
			return err
		}
	}
	return nil
}

// check looks at an answer in resp. The echo ring answers with the command.
func (m *machine) check(cmd []byte, n int) error {
	want := virtiogpu.SizeCtrlHdr
	if m.proc.name == echo {
		want = len(cmd)
	}
	if n < want {
		return fmt.Errorf("answer of %d bytes to %v", n, commandType(cmd))
	}
	if t := binary.LittleEndian.Uint32(m.resp[:]); m.proc.name != echo && t&^0xff != 0x1100 {
		return fmt.Errorf("%v answered with %#x", commandType(cmd), t)
	}
	return nil
}

func commandType(cmd []byte) virtiogpu.Type { return virtiogpu.Type(binary.LittleEndian.Uint32(cmd)) }

// room is the space for an answer that a driver would give it.
func room(cmd []byte) int {
	switch commandType(cmd) {
	case virtiogpu.CmdGetDisplayInfo:
		return virtiogpu.SizeDisplayInfo
	default:
		return len(cmd) // a header or more; the echo ring needs as much
	}
}

// result is one measurement.
type result struct {
	perSecond float64 // commands, or frames
	p50, p99  float64 // microseconds
	cpu       float64 // microseconds of the back-end for each
}

// oneByOne sends the commands again and again, each after the answer to the one before.
func (m *machine) oneByOne(cmds [][]byte, each time.Duration) (result, error) {
	return m.measure(each, len(cmds), func() error {
		for _, cmd := range cmds {
			at := time.Now()
			n, err := m.Do(cmd, m.resp[:room(cmd)])
			if err == nil {
				err = m.check(cmd, n)
			}
			if err != nil {
				return err
			}
			m.times = append(m.times, time.Since(at))
		}
		return nil
	})
}

// bursts sends the commands, inFlight at a time.
func (m *machine) bursts(cmds [][]byte, each time.Duration) (result, error) {
	next := 0
	return m.measure(each, inFlight, func() (err error) {
		first := next
		for i := range m.ops {
			cmd := cmds[next%len(cmds)]
			if m.ops[i], err = m.Ctrl.Submit(cmd, room(cmd)); err != nil {
				return err
			}
			next++
		}
		for i, op := range m.ops {
			n, err := m.Ctrl.Wait(op, m.resp[:], fakeguest.Timeout)
			if err == nil {
				err = m.check(cmds[(first+i)%len(cmds)], n)
			}
			if err != nil {
				return err
			}
		}
		next %= len(cmds)
		return nil
	})
}

// measure calls f, which does n things, until the time is over, after a tenth of it to warm up.
func (m *machine) measure(each time.Duration, n int, f func() error) (r result, err error) {
	for begun := time.Now(); time.Since(begun) < each/10; {
		if err := f(); err != nil {
			return r, m.proc.explain(err)
		}
	}
	m.times = m.times[:0]
	cpu, begun, count := m.proc.cpu(), time.Now(), 0
	for time.Since(begun) < each || count < atLeast {
		if err := f(); err != nil {
			return r, m.proc.explain(err)
		}
		count += n
	}
	took := time.Since(begun)
	r.perSecond = float64(count) / took.Seconds()
	r.cpu = micros(m.proc.cpu()-cpu) / float64(count)
	if len(m.times) > 0 {
		slices.Sort(m.times)
		r.p50, r.p99 = micros(quantile(m.times, 0.5)), micros(quantile(m.times, 0.99))
	}
	return r, nil
}

// quantile is the smallest of the sorted times that a share q of them does not exceed.
func quantile(sorted []time.Duration, q float64) time.Duration {
	i := int(q * float64(len(sorted)))
	return sorted[min(i, len(sorted)-1)]
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

// The commands.

func create2D(id, w, h uint32) []byte {
	return (&virtiogpu.ResourceCreate2D{ResourceID: id, Format: virtiogpu.FormatB8G8R8X8, Width: w, Height: h}).Append(nil)
}

func unref(id uint32) []byte { return (&virtiogpu.ResourceUnref{ResourceID: id}).Append(nil) }

func attach(id uint32, b *fakeguest.Block) []byte {
	p := (&virtiogpu.ResourceAttachBacking{ResourceID: id, NrEntries: uint32(len(b.Entries))}).Append(nil)
	for _, e := range b.Entries {
		p = virtiogpu.MemEntry{Addr: e.Addr, Length: e.Len}.Append(p)
	}
	return p
}

func transfer(id uint32, r virtiogpu.Rect, offset uint64) []byte {
	return (&virtiogpu.TransferToHost2D{ResourceID: id, R: r, Offset: offset}).Append(nil)
}

func flush(id uint32, r virtiogpu.Rect) []byte {
	return (&virtiogpu.ResourceFlush{ResourceID: id, R: r}).Append(nil)
}

func scanout(id uint32, r virtiogpu.Rect) []byte {
	return (&virtiogpu.SetScanout{ResourceID: id, R: r}).Append(nil)
}

func displayInfo() []byte { return (&virtiogpu.CtrlHdr{Type: virtiogpu.CmdGetDisplayInfo}).Append(nil) }

func rect(w, h uint32) virtiogpu.Rect { return virtiogpu.Rect{Width: w, Height: h} }

var errNoDisplay = errors.New("the front-end got no display socket")

// profile is the QEMU that the guests run in.
var profile = vhostusertest.QEMU11A
