package hostile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/virgl/dl"
)

// Target is a gpubroker process under attack. When a case ends it, it is started
// again for the next.
type Target struct {
	Name string // "virgl" or "2d"
	GL   bool

	root   *lab.Root
	opt    brokerproc.Options
	broker *brokerproc.Broker
	fds    int    // open while no VM is connected
	rss    int    // KiB, likewise, at the start
	maps   string // of the process then: where its libraries lie
}

// hostMem is the window for blobs in bytes.
const hostMem = 64 << 20

// NewTarget starts binary, with 3D or without, inside root.
func NewTarget(ctx context.Context, root *lab.Root, binary string, gl bool) (*Target, error) {
	t := &Target{Name: "2d", GL: gl, root: root}
	virgl := "off"
	if gl {
		t.Name, virgl = "virgl", "on"
	}
	t.opt = brokerproc.Options{Binary: binary, Args: []string{
		"--display", "headless", "--virgl=" + virgl, "--hostmem", strconv.Itoa(hostMem), "--heads", "2", "--limit", "bytes=1G,contexts=64",
		"--supervise=false"}} // a crash has to be seen
	if err := t.Start(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

// Start starts the broker, anew if it has ended, and counts what it holds when a
// VM has come and gone.
func (t *Target) Start(ctx context.Context) error {
	var err error
	if t.broker, err = brokerproc.Start(ctx, t.root, t.opt); err != nil {
		return err
	}
	// What a first VM makes the library and the runtime open stays.
	vm, err := t.Connect(vhostusertest.QEMU11B)
	if err != nil {
		return err
	}
	err = vm.Healthy()
	vm.Quit()
	if err != nil {
		return err
	}
	if err := t.idle(); err != nil {
		return err
	}
	for last := -1; ; time.Sleep(20 * time.Millisecond) {
		if t.fds, err = t.broker.OpenFDs(); err != nil {
			return err
		}
		if t.fds == last {
			break
		}
		last = t.fds
	}
	if t.rss, err = t.RSS(); err != nil {
		return err
	}
	maps, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(t.broker.PID()), "maps"))
	t.maps = string(maps)
	return err
}

// Place says which library a crash was in, from the PC in the Go runtime's report;
// empty if there was none.
func (t *Target) Place(log string) string {
	_, after, ok := strings.Cut(log, "\nPC=0x")
	if !ok {
		return ""
	}
	hex, _, _ := strings.Cut(after, " ")
	pc, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(t.maps) {
		f := strings.Fields(line)
		from, to, ok := strings.Cut(f[0], "-")
		if !ok || len(f) < 6 {
			continue
		}
		lo, err1 := strconv.ParseUint(from, 16, 64)
		hi, err2 := strconv.ParseUint(to, 16, 64)
		off, err3 := strconv.ParseUint(f[2], 16, 64)
		if errors.Join(err1, err2, err3) == nil && pc >= lo && pc < hi {
			return fmt.Sprintf("%s+%#x", filepath.Base(f[5]), pc-lo+off)
		}
	}
	return "code made at run time"
}

// Close ends the broker in good order, which also shows that it still can.
func (t *Target) Close() error {
	_, err := t.broker.Stop()
	return err
}

// Kill ends a broker that does not answer.
func (t *Target) Kill() { t.broker.Kill() }

// Alive reports whether the process runs.
func (t *Target) Alive() bool { return t.broker.Alive() }

// Log returns the broker's last lines.
func (t *Target) Log() string { return t.broker.Log() }

// RSS is the broker's resident memory in KiB.
func (t *Target) RSS() (int, error) { return RSS(t.broker.PID()) }

// RSS is a process' resident memory in KiB.
func RSS(pid int) (int, error) {
	body, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, fmt.Errorf("resident memory: %w", err)
	}
	for line := range strings.Lines(string(body)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "VmRSS:" {
			return strconv.Atoi(f[1])
		}
	}
	return 0, errors.New("resident memory: no VmRSS")
}

// settleTime is how long a VM that is gone may take to be forgotten.
const settleTime = 10 * time.Second

// idle waits until no VM is connected.
func (t *Target) idle() error {
	for end := time.Now().Add(settleTime); ; time.Sleep(2 * time.Millisecond) {
		s, err := t.broker.Status()
		if err != nil {
			return fmt.Errorf("status: %w", err)
		}
		if !s.Connected {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("the VM is still served %v after it left", settleTime)
		}
	}
}

// Leaked waits until the VM is forgotten and returns how many descriptors more
// than before its time are open.
func (t *Target) Leaked() (int, error) {
	if err := t.idle(); err != nil {
		return 0, err
	}
	n := 0
	for end := time.Now().Add(2 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		open, err := t.broker.OpenFDs()
		if err != nil {
			return 0, err
		}
		if n = open - t.fds; n <= 0 || time.Now().After(end) {
			return max(n, 0), nil
		}
	}
}

// Connect starts a VM whose driver is loaded.
func (t *Target) Connect(p vhostusertest.Profile) (*VM, error) {
	cfg := fakeguest.Config{Profile: p, RAMSize: ramSize, QueueSizes: [2]int{256, 64}}
	if p.DisplaySocket {
		cfg.Features = classicFeatures
	}
	return t.connect(cfg)
}

func (t *Target) connect(cfg fakeguest.Config) (*VM, error) {
	g, err := fakeguest.Dial(t.broker.Socket, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	if err := g.Boot(); err != nil {
		g.Quit()
		return nil, fmt.Errorf("boot: %w", err)
	}
	return &VM{Guest: g, socket: t.broker.Socket, alive: t.Alive, gl: t.GL, resp: make([]byte, 4096)}, nil
}

// HostRoot is the machine itself as a root: programs run on it without a sandbox,
// with its own libraries.
func HostRoot() *lab.Root { return &lab.Root{Dir: "/", Path: lab.GuestPath} }

// HaveGL reports whether the machine itself has the library that 3D needs.
func HaveGL() bool {
	_, err := dl.Open(dl.Spec{Sonames: []string{"libvirglrenderer.so.1"}, Package: "libvirglrenderer1"})
	return err == nil
}
