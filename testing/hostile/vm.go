package hostile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// ramSize is the guest's memory in bytes.
const ramSize = 64 << 20

// classicFeatures are what QEMU's own gpu device passes on.
const classicFeatures = 1<<virtiogpu.FeatureVirgl | 1<<virtiogpu.FeatureEDID | 1<<virtiogpu.FeatureResourceUUID |
	vhostuser.FVersion1 | vhostuser.FIndirectDesc | vhostuser.FEventIdx

// VM is one fake guest and its front-end.
type VM struct {
	*fakeguest.Guest
	socket string // the broker's
	alive  func() bool
	gl     bool
	resp   []byte
}

// answerTime is how long a command may take. Emulated GL on a loaded machine is
// slow; a broker that hangs is slower.
const answerTime = 20 * time.Second

// Do sends a command on the control queue and returns the response.
func (v *VM) Do(cmd []byte) (virtiogpu.Type, []byte, error) { return v.DoOn(v.Ctrl, cmd) }

// DoOn sends a command on a queue and returns the response.
func (v *VM) DoOn(q *fakeguest.Queue, cmd []byte) (virtiogpu.Type, []byte, error) {
	op, err := q.Submit(cmd, len(v.resp))
	if err != nil {
		return 0, nil, err
	}
	n, err := v.wait(q, op)
	if err != nil {
		return 0, nil, err
	}
	var h virtiogpu.CtrlHdr
	if err := h.Decode(v.resp[:n]); err != nil {
		return 0, nil, err
	}
	return h.Type, v.resp[:n], nil
}

// errExit says that the broker's process is gone.
var errExit = errors.New("the broker has ended")

// wait waits for the answer, while there is somebody to give one.
func (v *VM) wait(q *fakeguest.Queue, op *fakeguest.Op) (int, error) {
	for end := time.Now().Add(answerTime); ; {
		n, err := q.Wait(op, v.resp, 200*time.Millisecond)
		if !errors.Is(err, fakeguest.ErrTimeout) || time.Now().After(end) {
			return n, err
		}
		if !v.alive() {
			return 0, errExit
		}
	}
}

// OK sends commands that must succeed.
func (v *VM) OK(cmds ...[]byte) error {
	for _, cmd := range cmds {
		typ, _, err := v.Do(cmd)
		if err != nil {
			return err
		}
		if !typ.IsOK() {
			return fmt.Errorf("%v answered with %v", virtiogpu.Type(binary.LittleEndian.Uint32(cmd)), typ)
		}
	}
	return nil
}

// Try sends commands whose answers do not matter, but must come.
func (v *VM) Try(cmds ...[]byte) error {
	for _, cmd := range cmds {
		if _, _, err := v.Do(cmd); err != nil {
			return err
		}
	}
	return nil
}

// Reload is the guest's driver unloaded and loaded.
func (v *VM) Reload() error { return errors.Join(v.Reset(), v.Boot()) }

// Block takes scattered guest pages.
func (v *VM) Block(size uint64) (*fakeguest.Block, error) { return v.Pages.Scattered(size) }

// What Healthy uses; no case does.
const (
	healthRes = 0x7fff_0001
	healthCtx = 0x7fff_0002
	healthW   = 32
	healthH   = 16
)

// Healthy sends good commands, 2D and 3D, and looks at the pixels.
func (v *VM) Healthy() error {
	if err := v.healthy2D(); err != nil {
		return fmt.Errorf("next good command: %w", err)
	}
	if !v.gl {
		return nil
	}
	if err := v.healthy3D(); err != nil {
		return fmt.Errorf("next good 3D command: %w", err)
	}
	return nil
}

func (v *VM) healthy2D() error {
	b, err := v.Block(healthW * healthH * 4)
	if err != nil {
		return err
	}
	defer b.Free()
	all := rect(0, 0, healthW, healthH)
	return v.OK(bare(virtiogpu.CmdGetDisplayInfo, 0),
		create2D(healthRes, virtiogpu.FormatB8G8R8X8, healthW, healthH), attachBlock(healthRes, b),
		transfer2D(healthRes, all, 0), scanout(1, healthRes, all), flush(healthRes, all), scanout(1, 0, virtiogpu.Rect{}),
		unref(healthRes))
}

// healthy3D clears a texture in a context of its own and reads it back.
func (v *VM) healthy3D() error {
	b, err := v.Block(healthW * healthH * 4)
	if err != nil {
		return err
	}
	defer b.Free()
	var s virglcmd.Builder
	s.CreateSurface(1, healthRes, virglcmd.FormatB8G8R8A8, 0, 0)
	s.SetFramebuffer(1)
	s.Clear(virglcmd.ClearColor0, [4]float32{1, 0, 0, 1}, 0, 0)
	err = v.OK(createCtx(healthCtx), create3D(texture(healthRes, healthW, healthH)), attachBlock(healthRes, b),
		ctxRes(virtiogpu.CmdCtxAttachResource, healthCtx, healthRes),
		withFlags(submit(healthCtx, s.Bytes()), virtiogpu.FlagFence, 1, 0),
		transfer3D(virtiogpu.CmdTransferFromHost3D, virtiogpu.TransferHost3D{CtrlHdr: ctxHdr(healthCtx), ResourceID: healthRes,
			Box: virtiogpu.Box{W: healthW, H: healthH, D: 1}}),
		unref(healthRes), bare(virtiogpu.CmdCtxDestroy, healthCtx))
	if err != nil {
		return err
	}
	got := make([]byte, b.Size)
	b.ReadAt(got, 0)
	if want := bytes.Repeat([]byte{0, 0, 255, 255}, healthW*healthH); !bytes.Equal(got, want) {
		return fmt.Errorf("a red texture reads back as % x…", got[:8])
	}
	return nil
}

// Gone reports whether the broker has closed the connection.
func (v *VM) Gone() bool { return v.FE.Sync() != nil }
