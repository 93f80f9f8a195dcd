package hostile

import (
	"fmt"
	"strings"
	"time"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// noProblems is an error if the broker did what QEMU would not survive.
func noProblems(v *VM) error {
	if p := v.FE.Problems(); len(p) > 0 {
		return fmt.Errorf("QEMU would not like: %s", strings.Join(p, "; "))
	}
	return nil
}

func fenceCases() []Case {
	var out []Case
	const fence, ring = virtiogpu.FlagFence, virtiogpu.FlagInfoRingIdx
	for _, f := range []struct {
		name  string
		flags uint32
		id    uint64
		ring  uint8
	}{
		{"fence id 0", fence, 0, 0},
		{"fence id all ones", fence, ^uint64(0), 0},
		{"fence on ring 63", fence | ring, 1, 63},
		{"fence on ring 64", fence | ring, 1, 64},
		{"fence on ring 255", fence | ring, 1, 255},
		{"ring without a fence", ring, 1, 7},
		{"every flag", huge, 1 << 40, 255},
		{"unknown flags", huge &^ (fence | ring), 1, 0},
	} {
		out = append(out, Case{Group: "fence", Name: f.name, Do: func(v *VM) error { return fencedEverywhere(v, f.flags, f.id, f.ring) }})
	}
	return append(out,
		Case{Group: "fence", Name: "all 256 rings at once", On: OnGL, Do: everyRing},
		Case{Group: "fence", Name: "ids that go back", Do: fencesGoBack},
		Case{Group: "fence", Name: "a full ring of fences, then the context goes", On: OnGL, Do: fencesThenDestroy},
		Case{Group: "fence", Name: "a full ring of fences, then a reset", On: OnGL, Do: fencesThenReset},
	)
}

// fencedEverywhere sends good and bad commands with the flags, with and without
// a context.
func fencedEverywhere(v *VM, flags uint32, id uint64, ring uint8) error {
	cmds := [][]byte{bare(virtiogpu.CmdGetDisplayInfo, 0), unref(none), bare(virtiogpu.CmdGetDisplayInfo, none), flush(none, whole)}
	if v.gl {
		if err := v.OK(createCtx(ctxA)); err != nil {
			return err
		}
		cmds = append(cmds, submit(ctxA, nil), submit(ctxA, dwords(0)), bare(virtiogpu.CmdGetDisplayInfo, ctxA), submit(none, dwords(0)))
	}
	for _, cmd := range cmds {
		typ, resp, err := v.Do(withFlags(cmd, flags, id, ring))
		if err != nil {
			return fmt.Errorf("%v: %w", headerOf(cmd), err)
		}
		var h virtiogpu.CtrlHdr
		if err := h.Decode(resp); err != nil {
			return err
		}
		if flags&virtiogpu.FlagFence != 0 && h.FenceID != id {
			return fmt.Errorf("%v answered %v with fence %#x, want %#x", headerOf(cmd), typ, h.FenceID, id)
		}
	}
	return nil
}

func everyRing(v *VM) error {
	if err := v.OK(createCtx(ctxA)); err != nil {
		return err
	}
	var ops []*fakeguest.Op
	for i := range 200 {
		cmd := withFlags(submit(ctxA, dwords(0)), virtiogpu.FlagFence|virtiogpu.FlagInfoRingIdx, uint64(i), uint8(i))
		op, err := v.Ctrl.Submit(cmd, 64)
		if err != nil {
			return err
		}
		ops = append(ops, op)
	}
	return waitAll(v, ops)
}

func waitAll(v *VM, ops []*fakeguest.Op) error {
	for i, op := range ops {
		if _, err := v.wait(v.Ctrl, op); err != nil {
			return fmt.Errorf("command %d of %d: %w", i, len(ops), err)
		}
	}
	return nil
}

func fencesGoBack(v *VM) error {
	for _, id := range []uint64{1 << 40, 5, 5, 1 << 63, 0, ^uint64(0), 1} {
		if _, _, err := v.Do(withFlags(bare(virtiogpu.CmdGetDisplayInfo, 0), virtiogpu.FlagFence, id, 0)); err != nil {
			return err
		}
	}
	return nil
}

// fullRing fills the control queue with fenced drawing.
func fullRing(v *VM) ([]*fakeguest.Op, error) {
	if err := state3D(v); err != nil {
		return nil, err
	}
	var s virglcmd.Builder
	s.Draw(virglcmd.TriangleStrip, 0, 4)
	var ops []*fakeguest.Op
	for i := range v.Ctrl.Size() - 2 {
		op, err := v.Ctrl.Submit(withFlags(submit(ctxA, s.Bytes()), virtiogpu.FlagFence, uint64(i), 0), 64)
		if err != nil {
			return nil, err
		}
		ops = append(ops, op)
	}
	return ops, nil
}

func fencesThenDestroy(v *VM) error {
	ops, err := fullRing(v)
	if err != nil {
		return err
	}
	op, err := v.Ctrl.Submit(bare(virtiogpu.CmdCtxDestroy, ctxA), 64)
	if err != nil {
		return err
	}
	return waitAll(v, append(ops, op))
}

func fencesThenReset(v *VM) error {
	if _, err := fullRing(v); err != nil {
		return err
	}
	time.Sleep(time.Millisecond) // some are taken, some are not
	return v.Reload()
}
