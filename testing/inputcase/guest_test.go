package inputcase_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/input"
	"github.com/gpubroker/gpubroker/testing/inputcase"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// wait is how long an emulated guest may take to read what it was sent.
const wait = 20 * time.Second

// rig is a guest whose input devices this process serves.
type rig struct {
	*testing.T
	in    *input.Server
	guest *inputcase.Guest
	main  *inputcase.Recording
	touch *inputcase.Recording
	files int
}

func newRig(t *testing.T, qemu string, more ...string) *rig {
	t.Helper()
	labtest.Root(t)
	dir := t.TempDir()
	sock, touch := filepath.Join(dir, "in.sock"), filepath.Join(dir, "touch.sock")
	in, err := input.NewServer(input.Config{Socket: sock, TouchSocket: touch, Log: zaptest.NewLogger(t, zaptest.Level(zap.InfoLevel))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- in.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		if err := in.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	vm := labtest.VM(t, lab.VMConfig{QEMU: qemu, Devices: append(inputcase.Devices(sock, touch), more...)})
	g, err := inputcase.Prepare(t.Context(), vm)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, in: in, guest: g}
	r.record()
	return r
}

// record starts to read both devices.
func (r *rig) record() {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	for name, rec := range map[string]**inputcase.Recording{inputcase.MainName: &r.main, inputcase.TouchName: &r.touch} {
		r.files++
		var err error
		if *rec, err = r.guest.Record(ctx, name, fmt.Sprintf("events-%d", r.files)); err != nil {
			r.Fatal(err)
		}
	}
}

// check runs a script that must end with code 0.
func (r *rig) check(t *testing.T, script string) string {
	t.Helper()
	out, err := r.guest.VM.Check(t.Context(), script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (r *rig) qmp(t *testing.T, command string) {
	t.Helper()
	if _, err := r.guest.VM.QMP(t.Context(), command, nil); err != nil {
		t.Fatal(err)
	}
}

// reads does something and compares what the guest reads of it.
func reads(t *testing.T, rec *inputcase.Recording, do func(), want ...input.Event) {
	t.Helper()
	do()
	got, err := rec.Next(wait, len(want))
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Fatalf("the guest read other events (-want +got): %v\n%s", err, diff)
	}
}

func ev(typ, code uint16, value int32) input.Event {
	return input.Event{Type: typ, Code: code, Value: uint32(value)}
}

var syn = ev(input.EvSyn, input.SynReport, 0)

const keyA, keyB, keyC = 30, 48, 46

// tap presses and releases a key, each in a frame.
func tap(in display.Input, code uint16) {
	in.Key(0, code, true)
	in.Frame(0)
	in.Key(0, code, false)
	in.Frame(0)
}

func tapped(code uint16) []input.Event {
	return []input.Event{ev(input.EvKey, code, 1), syn, ev(input.EvKey, code, 0), syn}
}

// TestGuest sends input to a real driver and reads what its programs would read.
func TestGuest(t *testing.T) {
	for _, qemu := range []string{lab.QEMU11, lab.QEMU10} {
		t.Run("QEMU "+qemu, func(t *testing.T) {
			r := newRig(t, qemu)
			t.Run("udev", r.testUdev)
			t.Run("events", r.testEvents)
			t.Run("touch", r.testTouch)
			t.Run("lights", r.testLights)
			t.Run("bursts", r.testBursts)
			t.Run("flood", r.testFlood)
			t.Run("stop and cont", r.testStop)
			t.Run("driver reload", r.testReload)
			t.Run("guest reset", r.testReset)
		})
	}
}

// testUdev asks udev what the devices are: libinput goes by that.
func (r *rig) testUdev(t *testing.T) {
	r.check(t, "/lib/systemd/systemd-udevd --daemon; udevadm trigger --subsystem-match=input; udevadm settle")
	out := r.check(t, `for e in /sys/class/input/event*; do echo "[$(cat $e/device/name)]"; udevadm info -q property -p $e | grep ^ID_INPUT; done`)
	props := map[string][]string{}
	name := ""
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			name = strings.Trim(line, "[]")
			continue
		}
		key, _, _ := strings.Cut(line, "=")
		if !strings.HasSuffix(key, "_MM") {
			props[name] = append(props[name], key)
		}
	}
	want := map[string][]string{
		inputcase.MainName:  {"ID_INPUT", "ID_INPUT_KEY", "ID_INPUT_KEYBOARD", "ID_INPUT_MOUSE"},
		inputcase.TouchName: {"ID_INPUT", "ID_INPUT_TOUCHSCREEN"},
	}
	for name := range want {
		got := slices.Sorted(slices.Values(props[name]))
		if diff := cmp.Diff(want[name], got); diff != "" {
			t.Errorf("%s (-want +got):\n%s\nof\n%s", name, diff, out)
		}
	}
}

func (r *rig) testEvents(t *testing.T) {
	in, rec := r.in, r.main
	reads(t, rec, func() { tap(in, keyA) }, tapped(keyA)...)
	reads(t, rec, func() { tap(in, 0x212) }, tapped(0x212)...) // KEY_TOUCHPAD_TOGGLE
	reads(t, rec, func() {
		in.Pointer(0, 100, 200)
		in.Frame(0)
		in.Pointer(0, 100, 32767)
		in.Button(0, input.BtnLeft, true)
		in.Frame(0)
		in.Pointer(0, 101, 32767)
		in.Frame(0)
		in.Button(0, input.BtnLeft, false)
		in.Frame(0)
	},
		ev(input.EvAbs, input.AbsX, 100), ev(input.EvAbs, input.AbsY, 200), syn,
		ev(input.EvAbs, input.AbsY, 32767), ev(input.EvKey, input.BtnLeft, 1), syn,
		ev(input.EvAbs, input.AbsX, 101), syn,
		ev(input.EvKey, input.BtnLeft, 0), syn,
	)
	reads(t, rec, func() {
		in.Scroll(0, 120, 0)
		in.Frame(0)
		in.Scroll(0, -30, 0)
		in.Frame(0)
		in.Scroll(0, -90, 240)
		in.Frame(0)
	},
		ev(input.EvRel, input.RelWheelHiRes, -120), ev(input.EvRel, input.RelWheel, -1), syn,
		ev(input.EvRel, input.RelWheelHiRes, 30), syn,
		ev(input.EvRel, input.RelWheelHiRes, 90), ev(input.EvRel, input.RelWheel, 1),
		ev(input.EvRel, input.RelHWheelHiRes, 240), ev(input.EvRel, input.RelHWheel, 2), syn,
	)
	in.SetHeads([]input.Size{{W: 1000, H: 1000}, {W: 3000, H: 500}})
	defer in.SetHeads(nil)
	reads(t, rec, func() {
		in.Pointer(0, 16384, 16384)
		in.Frame(0)
		in.Pointer(1, 16384, 16384)
		in.Frame(1)
	},
		ev(input.EvAbs, input.AbsX, 4096), ev(input.EvAbs, input.AbsY, 16384), syn,
		ev(input.EvAbs, input.AbsX, 20480), ev(input.EvAbs, input.AbsY, 8192), syn,
	)
}

func (r *rig) testTouch(t *testing.T) {
	in := r.in
	const X, Y = input.AbsMTX, input.AbsMTY
	reads(t, r.touch, func() {
		in.Touch(0, 0, 10, 20, true)
		in.Frame(0)
		in.Touch(0, 3, 30, 40, true)
		in.Touch(0, 0, 11, 20, true)
		in.Frame(0)
		in.Touch(0, 0, 0, 0, false)
		in.Frame(0)
		in.Touch(0, 3, 0, 0, false)
		in.Frame(0)
	},
		ev(input.EvAbs, input.AbsTrackingID, 0), ev(input.EvAbs, X, 10), ev(input.EvAbs, Y, 20), ev(input.EvKey, input.BtnTouch, 1),
		ev(input.EvAbs, input.AbsX, 10), ev(input.EvAbs, input.AbsY, 20), syn,
		ev(input.EvAbs, input.AbsSlot, 3), ev(input.EvAbs, input.AbsTrackingID, 1), ev(input.EvAbs, X, 30), ev(input.EvAbs, Y, 40),
		ev(input.EvAbs, input.AbsSlot, 0), ev(input.EvAbs, X, 11), ev(input.EvAbs, input.AbsX, 11), syn,
		ev(input.EvAbs, input.AbsTrackingID, -1), ev(input.EvAbs, input.AbsX, 30), ev(input.EvAbs, input.AbsY, 40), syn,
		ev(input.EvAbs, input.AbsSlot, 3), ev(input.EvAbs, input.AbsTrackingID, -1), ev(input.EvKey, input.BtnTouch, 0), syn,
	)
}

func (r *rig) testLights(t *testing.T) {
	for _, step := range []struct {
		code, value int
		want        uint32
	}{{input.LEDCaps, 1, 2}, {input.LEDNum, 1, 3}, {input.LEDCaps, 0, 1}, {input.LEDNum, 0, 0}} {
		r.check(t, fmt.Sprintf("/lab/share/evread led '%s' %d %d", inputcase.MainName, step.code, step.value))
		reads(t, r.main, func() {}, ev(input.EvLED, uint16(step.code), int32(step.value)), syn)
		if got := r.in.LEDs(); got != step.want {
			t.Errorf("lights %#b after %+v", got, step)
		}
	}
}

// testBursts sends at once what the queue must hold for a guest with few buffers;
// nothing is merged, nothing is lost. The kernel keeps 64 events for a reader.
func (r *rig) testBursts(t *testing.T) {
	const bursts, moves, taps = 20, 10, 6
	for i := range bursts {
		var want []input.Event
		for j := range moves {
			x, y := 1000+i*100+j, 2000+i*100+j
			want = append(want, ev(input.EvAbs, input.AbsX, int32(x)), ev(input.EvAbs, input.AbsY, int32(y)), syn)
		}
		for j := range taps {
			want = append(want, tapped(uint16(keyA+j))...)
		}
		reads(t, r.main, func() {
			for j := range moves {
				r.in.Pointer(0, uint16(1000+i*100+j), uint16(2000+i*100+j))
				r.in.Frame(0)
			}
			for j := range taps {
				tap(r.in, uint16(keyA+j))
			}
		}, want...)
	}
}

// testFlood sends more than anything can hold. Afterwards the guest must be as if
// nothing had been: a key that it thought pressed would not be read again.
func (r *rig) testFlood(t *testing.T) {
	const strokes, moves = 5000, 5
	for i := range strokes {
		for j := range moves {
			r.in.Pointer(0, uint16(i*moves+j), uint16(j))
			r.in.Frame(0)
		}
		tap(r.in, uint16(keyA+i%3))
	}
	r.in.Pointer(0, 30000, 30001)
	r.in.Frame(0)
	c := r.in.Counters(input.Main)
	t.Logf("%+v", c)
	if c.Merged == 0 {
		t.Error("the guest kept up with everything: no flood")
	}
	for end := time.Now().Add(wait); r.in.Counters(input.Main).Waiting > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the guest took no more: %+v", r.in.Counters(input.Main))
		}
	}
	if _, err := r.main.Settle(wait, time.Second); err != nil { // whatever was read
		t.Fatal(err)
	}
	for i := range uint16(3) {
		reads(t, r.main, func() { tap(r.in, keyA+i) }, tapped(keyA+i)...)
	}
	reads(t, r.main, func() { // the guest knows the place: the same again is no event
		r.in.Pointer(0, 30000, 30002)
		r.in.Frame(0)
	}, ev(input.EvAbs, input.AbsY, 30002), syn)
}

// testStop lets go of a key while the guest is stopped.
func (r *rig) testStop(t *testing.T) {
	reads(t, r.main, func() {
		r.in.Key(0, keyB, true)
		r.in.Frame(0)
	}, ev(input.EvKey, keyB, 1), syn)
	r.qmp(t, "stop")
	tap(r.in, keyC) // nobody sees it
	r.in.Pointer(0, 5, 6)
	r.in.Frame(0)
	r.in.Key(0, keyB, false)
	r.in.Frame(0)
	reads(t, r.main, func() { r.qmp(t, "cont") },
		ev(input.EvAbs, input.AbsX, 5), ev(input.EvAbs, input.AbsY, 6), ev(input.EvKey, keyB, 0), syn)
}

// testReload unloads the driver while a key is down.
func (r *rig) testReload(t *testing.T) {
	reads(t, r.main, func() {
		r.in.Key(0, keyB, true)
		r.in.Frame(0)
	}, ev(input.EvKey, keyB, 1), syn)
	r.check(t, "rmmod virtio_input && /lab/share/evread absent '"+inputcase.MainName+"'")
	r.check(t, "modprobe virtio_input")
	r.record()
	reads(t, r.main, func() {
		r.in.Key(0, keyB, false) // of the old driver's time
		tap(r.in, keyA)
	}, tapped(keyA)...)
	reads(t, r.touch, func() {
		r.in.Touch(0, 1, 7, 8, true)
		r.in.Frame(0)
	}, ev(input.EvAbs, input.AbsSlot, 1), ev(input.EvAbs, input.AbsTrackingID, 0),
		ev(input.EvAbs, input.AbsMTX, 7), ev(input.EvAbs, input.AbsMTY, 8), ev(input.EvKey, input.BtnTouch, 1),
		ev(input.EvAbs, input.AbsX, 7), ev(input.EvAbs, input.AbsY, 8), syn)
}

// testReset resets the guest, with a finger down.
func (r *rig) testReset(t *testing.T) {
	r.qmp(t, "system_reset")
	if err := r.guest.VM.WaitBoot(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if err := r.guest.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.record()
	reads(t, r.main, func() { tap(r.in, keyC) }, tapped(keyC)...)
	r.in.Touch(0, 1, 7, 8, false) // of before
	r.in.Frame(0)
	reads(t, r.touch, func() {
		r.in.Touch(0, 0, 9, 9, true)
		r.in.Touch(0, 0, 9, 9, false)
		r.in.Frame(0)
	}, ev(input.EvAbs, input.AbsTrackingID, 0), ev(input.EvAbs, input.AbsMTX, 9), ev(input.EvAbs, input.AbsMTY, 9), ev(input.EvKey, input.BtnTouch, 1),
		ev(input.EvAbs, input.AbsX, 9), ev(input.EvAbs, input.AbsY, 9),
		ev(input.EvAbs, input.AbsTrackingID, -1), ev(input.EvKey, input.BtnTouch, 0), syn)
}
