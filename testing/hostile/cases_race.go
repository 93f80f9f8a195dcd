package hostile

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
)

// raceTime is how long a guest changes what the broker is reading.
const raceTime = 400 * time.Millisecond

// race runs change again and again beside f, which runs until time is up.
func race(change func(rnd *rand.Rand), f func() error) error {
	stop := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		rnd := rand.New(rand.NewPCG(7, 7))
		for {
			select {
			case <-stop:
				return
			default:
				change(rnd)
			}
		}
	})
	var err error
	for end := time.Now().Add(raceTime); err == nil && time.Now().Before(end); {
		err = f()
	}
	close(stop)
	done.Wait()
	return err
}

// push offers chain 0 again and waits a moment for an answer, which may not come.
func push(v *VM) error {
	v.Ctrl.PushAvail(0)
	if err := v.Ctrl.RingKick(); err != nil {
		return err
	}
	_, _, _ = v.Ctrl.WaitUsed(time.Millisecond)
	return nil
}

func raceCases() []Case {
	return []Case{
		{Group: "race", Name: "the command changes", End: Reloads, Do: func(v *VM) error {
			return raceBytes(v, attach(resBare, 3, virtiogpu.MemEntry{Addr: 4096, Length: 4096},
				virtiogpu.MemEntry{Addr: 8192, Length: 4096}, virtiogpu.MemEntry{Addr: 12288, Length: 4096}))
		}},
		{Group: "race", Name: "the entries of a blob change", End: Reloads, Do: func(v *VM) error {
			e := virtiogpu.MemEntry{Addr: 4096, Length: 4096}
			return raceBytes(v, createBlob(0, virtiogpu.ResourceCreateBlob{ResourceID: none, BlobMem: virtiogpu.BlobMemGuest, Size: 8192}, 2, e, e))
		}},
		{Group: "race", Name: "a stream changes", On: OnGL, End: Reloads, Do: func(v *VM) error { return raceBytes(v, submit(ctxA, scene())) }},
		{Group: "race", Name: "descriptors change", End: Reloads, Do: raceDescriptors},
		{Group: "race", Name: "an indirect table changes", End: Reloads, Do: raceTable},
		{Group: "race", Name: "the available index jumps", End: Reloads, Do: func(v *VM) error {
			return race(func(rnd *rand.Rand) { v.Ctrl.SetAvailIdx(uint16(rnd.Uint32())) }, func() error {
				time.Sleep(100 * time.Microsecond)
				return v.Ctrl.RingKick()
			})
		}},
		{Group: "race", Name: "the used ring is overwritten", End: Reloads, Do: raceUsed},
		{Group: "race", Name: "pixels change under transfers", Do: racePixels},
	}
}

func raceState(v *VM) error {
	if v.gl {
		return state3D(v)
	}
	return state2D(v)
}

// raceBytes sends cmd again and again while its bytes change.
func raceBytes(v *VM, cmd []byte) error {
	if err := raceState(v); err != nil {
		return err
	}
	b, err := v.Pages.Contiguous(uint64(len(cmd) + fakeguest.PageSize))
	if err != nil {
		return err
	}
	defer b.Free()
	at := b.Entries[0].Addr
	mem := v.RAM.Slice(at, len(cmd))
	copy(mem, cmd)
	resp := (at + uint64(len(cmd)) + 4095) &^ 4095
	v.Ctrl.SetDesc(0, at, uint32(len(cmd)), next, 1)
	v.Ctrl.SetDesc(1, resp, 512, write, 0)
	values := []byte{0, 1, 2, 4, 7, 16, 0x7f, 0x80, 0xff}
	return race(func(rnd *rand.Rand) {
		i := rnd.IntN(len(cmd))
		if i < 4 {
			return // it stays that command
		}
		mem[i] = values[rnd.IntN(len(values))]
		for range 20 {
			mem[i] = cmd[i]
		}
	}, func() error { return push(v) })
}

func randomDesc(rnd *rand.Rand, at uint64) (addr uint64, n uint32, flags, nxt uint16) {
	addr = [...]uint64{at, at + 8, 1 << 46, ^uint64(0), 0, ramSize - 4}[rnd.IntN(6)]
	n = [...]uint32{0, 8, 24, 512, 4096, huge}[rnd.IntN(6)]
	return addr, n, uint16(rnd.Uint32N(8)), [...]uint16{0, 1, 2, 255, 256, 0xffff}[rnd.IntN(6)]
}

func raceDescriptors(v *VM) error {
	p, free, err := newPage(v)
	if err != nil {
		return err
	}
	defer free()
	copy(p.mem, bare(virtiogpu.CmdGetDisplayInfo, 0))
	return race(func(rnd *rand.Rand) {
		v.Ctrl.SetDesc(0, p.addr, virtiogpu.SizeCtrlHdr, next, 1)
		v.Ctrl.SetDesc(1, p.addr+64, 512, write, 0)
		addr, n, flags, nxt := randomDesc(rnd, p.addr)
		v.Ctrl.SetDesc(rnd.IntN(3), addr, n, flags, nxt)
	}, func() error { return push(v) })
}

func raceTable(v *VM) error {
	p, free, err := newPage(v)
	if err != nil {
		return err
	}
	defer free()
	copy(p.mem, bare(virtiogpu.CmdGetDisplayInfo, 0))
	v.Ctrl.SetDesc(0, p.addr+2048, 64, indir, 0)
	table := p.mem[2048:]
	return race(func(rnd *rand.Rand) {
		fakeguest.PutDesc(table, p.addr, virtiogpu.SizeCtrlHdr, next, 1)
		fakeguest.PutDesc(table[16:], p.addr+64, 512, write, 0)
		addr, n, flags, nxt := randomDesc(rnd, p.addr)
		fakeguest.PutDesc(table[16*rnd.IntN(3):], addr, n, flags, nxt)
	}, func() error { return push(v) })
}

func raceUsed(v *VM) error {
	l := v.Ctrl.Layout()
	mem := v.RAM.Slice(l.Used, 4+8*l.Size)
	return race(func(rnd *rand.Rand) { mem[rnd.IntN(len(mem))] = byte(rnd.Uint32()) }, func() error { return push(v) })
}

// racePixels draws on pages while they are copied and read back.
func racePixels(v *VM) error {
	if err := raceState(v); err != nil {
		return err
	}
	b, err := v.Pages.Contiguous(256 * 256 * 4)
	if err != nil {
		return err
	}
	defer b.Free()
	cmds := [][]byte{transfer2D(80, rect(0, 0, 256, 256), 0), flush(80, rect(0, 0, 256, 256))}
	if err := v.OK(create2D(80, bgra, 256, 256), attachBlock(80, b), scanout(0, 80, rect(0, 0, 256, 256))); err != nil {
		return err
	}
	if v.gl {
		if err := v.OK(create3D(texture(81, 256, 256)), attachBlock(81, b)); err != nil {
			return err
		}
		box := virtiogpu.Box{W: 256, H: 256, D: 1}
		cmds = append(cmds, transfer3D(virtiogpu.CmdTransferToHost3D, virtiogpu.TransferHost3D{ResourceID: 81, Box: box}),
			transfer3D(virtiogpu.CmdTransferFromHost3D, virtiogpu.TransferHost3D{ResourceID: 81, Box: box}))
	}
	mem := v.RAM.Slice(b.Entries[0].Addr, int(b.Size))
	err = race(func(rnd *rand.Rand) { mem[rnd.IntN(len(mem))] = byte(rnd.Uint32()) }, func() error { return v.OK(cmds...) })
	if err != nil {
		return fmt.Errorf("while pixels change: %w", err)
	}
	return nil
}
