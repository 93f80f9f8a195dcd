package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/report"
	"github.com/gpubroker/gpubroker/testing/westoncap"
)

// Size of each screen of the nested guest, in pixels: every one of them is drawn by
// an emulated processor.
const nestedW, nestedH = 640, 480

// gpu is one GPU of the nested guest: a broker in a compositor of its own.
type gpu struct {
	name   string // of the screenshot and of the log
	slot   string // its PCI address in the guest
	device string // QEMU's -device, without chardev and address
	args   []string
	start  string // starts the program on /dev/dri/$card in the guest
	end    string // ends it when it was seen, so that the next has the processor alone
	log    string // the program's, in the guest

	weston *lab.Compositor
	broker *brokerproc.Broker
	out    *os.File
}

// nestedGPUs are the two ways for a guest to reach gpubroker.
func nestedGPUs() []*gpu {
	return []*gpu{
		{name: "cube", slot: "0x10", device: "vhost-user-gpu-pci", args: []string{"--virgl=on"}, start: lab.StartKmscube("/dev/dri/$card"), end: lab.StopKmscube,
			log: lab.KmscubeLog},
		{name: "weston", slot: "0x11", device: lab.GenericGPU,
			args: []string{"--virgl=off", "--hostmem", "256M"}, start: startWeston, end: "true", log: "/tmp/weston.log"},
	}
}

// startWeston starts a compositor that draws with the CPU, and a client in it. udev
// tells it of the card, seatd opens it.
const startWeston = `/lib/systemd/systemd-udevd --daemon; udevadm trigger --subsystem-match=drm; udevadm settle
export XDG_RUNTIME_DIR=/tmp/xdg; mkdir -p -m 700 $XDG_RUNTIME_DIR
seatd > /tmp/seatd.log 2>&1 &
for i in $(seq 100); do [ -e /run/seatd.sock ] && break; sleep 0.1; done
LIBSEAT_BACKEND=seatd weston --backend=drm --drm-device=$card --renderer=pixman --continue-without-input --shell=kiosk \
	--socket=w --idle-time=0 > /tmp/weston.log 2>&1 &
for i in $(seq 600); do [ -S $XDG_RUNTIME_DIR/w ] && break; sleep 0.2; done
[ -S $XDG_RUNTIME_DIR/w ] || { cat /tmp/weston.log; exit 1; }
WAYLAND_DISPLAY=w weston-simple-shm > /tmp/shm.log 2>&1 &
`

// findCard sets $card to the card at a PCI slot. The shell finds it by itself: to start
// a program takes a second there.
const findCard = `set -e
modprobe virtio_gpu
for i in $(seq 100); do
	for dir in /sys/bus/pci/devices/0000:00:%s.0/drm/card*; do card=${dir##*/}; done
	[ -e /dev/dri/$card ] && break
	sleep 0.1
done
[ -e /dev/dri/$card ] || { ls -l /dev/dri; dmesg | tail -n 20; exit 1; }
`

// run makes the compositor and the broker.
func (g *gpu) run(ctx context.Context, root *lab.Root, binary, dir string) (err error) {
	if g.weston, err = root.Weston(ctx, lab.WestonOptions{Renderer: "gl", W: nestedW, H: nestedH}); err != nil {
		return err
	}
	if g.out, err = os.Create(filepath.Join(dir, g.name+"-gpubroker.log")); err != nil {
		return err
	}
	g.broker, err = brokerproc.Start(ctx, root, brokerproc.Options{
		Binary: binary, Env: g.weston.Env(), Log: g.out,
		Args: append([]string{"--display", "wayland", "--wayland-display", g.weston.Socket(),
			"--size", fmt.Sprintf("%dx%d", nestedW, nestedH)}, g.args...),
	})
	return err
}

func (g *gpu) stop() (err error) {
	if g.broker != nil {
		_, err = g.broker.Stop()
	}
	if g.weston != nil {
		g.weston.Stop()
	}
	if g.out != nil {
		err = errors.Join(err, g.out.Close())
	}
	return err
}

// qemu is the device's part of QEMU's command line.
func (g *gpu) qemu() []string {
	return []string{"-chardev", "socket,id=" + g.name + ",path=" + g.broker.Socket, "-device", g.device + ",chardev=" + g.name + ",addr=" + g.slot}
}

// workNested is the part of runNested inside the machine.
func workNested(ctx context.Context, accel, binary, dir string) (err error) {
	root, err := lab.Find()
	if err != nil {
		return err
	}
	cfg, why := lab.InnerConfig(ctx, nestedTime)
	if why != "" {
		fmt.Printf("no KVM in the machine, the nested guest takes ten times as long: %s\n", why)
	}
	if accel != "" {
		cfg.Accel = accel
	}
	cfg.Output = os.Stdout
	rep := nestedReport{Accel: cfg.Accel}
	gpus := nestedGPUs()
	for _, g := range gpus {
		defer func() { err = errors.Join(err, g.stop()) }()
		if err := g.run(ctx, root, binary, dir); err != nil {
			return err
		}
		cfg.Devices = append(cfg.Devices, g.qemu()...)
	}
	fmt.Printf("booting the nested guest under %s\n", rep.Accel)
	start := time.Now()
	vm, err := root.StartVM(ctx, cfg)
	if err != nil {
		return err
	}
	defer vm.Close()
	qemu, err := findQEMU()
	if err != nil {
		return err
	}
	if err := vm.WaitBoot(ctx, 1); err != nil {
		return err
	}
	rep.BootSeconds = time.Since(start).Seconds()
	fmt.Printf("user space of the nested guest after %.0f s\n", rep.BootSeconds)
	for i, into := range []*nestedGPU{&rep.Cube, &rep.Weston} {
		if err := gpus[i].watch(ctx, vm, qemu, dir, into); err != nil {
			return fmt.Errorf("nested %s: %w\n%s", gpus[i].name, err, vm.Console())
		}
	}
	body, err := json.MarshalIndent(rep, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, workerFile), body, 0o644)
}

// findQEMU finds the machine's only QEMU.
func findQEMU() (pid int, err error) {
	files, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		if name, _ := os.ReadFile(file); strings.HasPrefix(string(name), "qemu-system") {
			return strconv.Atoi(filepath.Base(filepath.Dir(file)))
		}
	}
	return 0, errors.New("no QEMU runs in the machine")
}

// asleep stops QEMU while f runs: the compositor that takes a picture needs the
// processors for itself.
func asleep(qemu int, f func() error) error {
	if err := unix.Kill(qemu, unix.SIGSTOP); err != nil {
		return err
	}
	return errors.Join(f(), unix.Kill(qemu, unix.SIGCONT))
}

// drawing reports whether the program's own frames are on the screen: kmscube's come
// with 3D commands, weston's with two buffers that take turns, where the console has
// one.
func (g *gpu) drawing(st, before *broker.Status) bool {
	if len(st.Scanouts) != 1 {
		return false
	}
	if g.name == "cube" {
		return st.Submits >= before.Submits+5 && st.Scanouts[0].Tier == tierDMABuf
	}
	old := map[uint32]bool{}
	for _, r := range before.Resources {
		old[r.ID] = true
	}
	return !old[st.Scanouts[0].Resource]
}

// watch starts the program and follows its frames.
func (g *gpu) watch(ctx context.Context, vm *lab.VM, qemu int, dir string, into *nestedGPU) error {
	card := fmt.Sprintf(findCard, strings.TrimPrefix(g.slot, "0x"))
	if _, err := vm.Check(ctx, card); err != nil {
		return err
	}
	before, err := g.until(ctx, func(*broker.Status) bool { return true })
	if err != nil {
		return err
	}
	fmt.Printf("starting the nested %s\n", g.name)
	begun := time.Now()
	if _, err := vm.Check(ctx, card+g.start); err != nil {
		return err
	}
	first, err := g.until(ctx, func(st *broker.Status) bool { return g.drawing(st, &before) })
	if err != nil {
		return err
	}
	into.FirstSeconds = time.Since(begun).Seconds()
	seen := time.Now()
	last, err := g.until(ctx, func(st *broker.Status) bool { return total(st) >= total(&first)+minFrames })
	if err != nil {
		return err
	}
	into.FPS = float64(total(&last)-total(&first)) / time.Since(seen).Seconds()
	into.count(&first, &last)
	fmt.Printf("%d frames of it in %.0f s; taking a picture\n", total(&last)-total(&first), time.Since(seen).Seconds())
	if err := asleep(qemu, func() error { return g.shoot(dir, into) }); err != nil {
		return err
	}
	text, err := vm.Check(ctx, "cat "+g.log)
	if err != nil {
		return err
	}
	if m := rendererLine.FindStringSubmatch(text); m != nil {
		into.GuestRenderer = strings.Trim(m[1], `" `)
	}
	if into.Features, err = vm.Check(ctx, "dmesg | sed -n 's/.*\\[drm\\] features: //p' | tr '\\n' ' '"); err != nil {
		return err
	}
	if _, err := vm.Check(ctx, g.end); err != nil {
		return err
	}
	fmt.Printf("%s: %d frames of tier %s, %d bytes copied, %.1f a second; the first after %.0f s\n", g.name, into.Frames, into.Tier,
		into.BytesCopied, into.FPS, into.FirstSeconds)
	return nil
}

// rendererLine is kmscube's and weston's.
var rendererLine = regexp.MustCompile(`(?i)(?:renderer: +|Using )("[^"]*"|Pixman)`)

// total is how many frames reached the display.
func total(st *broker.Status) uint64 { return st.Frames.DMABuf + st.Frames.Shm }

// until asks for the status until it is good. Where both processors are busy with the
// nested guest, an answer may take longer than a reader of the status waits.
func (g *gpu) until(ctx context.Context, good func(*broker.Status) bool) (broker.Status, error) {
	for {
		st, err := g.broker.Status()
		if err == nil && good(&st) || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return st, err
		}
		select {
		case <-ctx.Done():
			return st, fmt.Errorf("%w: %+v", context.Cause(ctx), st)
		case <-time.After(time.Second):
		}
	}
}

// count fills in what happened between two looks.
func (n *nestedGPU) count(first, last *broker.Status) {
	n.Frames = total(last) - total(first)
	n.BytesCopied = last.BytesCopied - first.BytesCopied
	n.Exports = last.Exports
	n.Errors = last.Errors + last.RingErrors
	n.Tiers = maps.Clone(last.Tiers)
	for tier, count := range first.Tiers {
		n.Tiers[tier] -= count
	}
	maps.DeleteFunc(n.Tiers, func(_ string, count uint64) bool { return count == 0 })
	if len(last.Scanouts) == 1 {
		n.Tier = last.Scanouts[0].Tier
	}
}

func (g *gpu) shoot(dir string, into *nestedGPU) error {
	camera, err := westoncap.Open(g.weston.Socket())
	if err != nil {
		return err
	}
	defer camera.Close()
	shot, err := camera.Shoot()
	if err != nil {
		return err
	}
	into.Colours, into.Drawn = report.Colours(shot.Image())
	return report.Dir{Path: dir}.PNG(g.name+".png", shot.Image())
}
