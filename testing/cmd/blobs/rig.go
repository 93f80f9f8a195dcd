package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
)

// Size of the guest's screen and of the compositor's output, in pixels.
const (
	width  = 800
	height = 600
)

// rig is a real guest in QEMU on gpubroker, in a headless weston.
type rig struct {
	weston *lab.Compositor
	broker *brokerproc.Broker
	vm     *lab.VM
	qemu   int // QEMU's process id
}

// device is the GPU of QEMU 11.1 that passes everything on (mode B).
func device(socket string) []string {
	return []string{"-chardev", "socket,id=gpu,path=" + socket, "-device",
		lab.GenericGPU + ",chardev=gpu"}
}

func (p *programs) newRig(ctx context.Context, virgl string, log io.Writer) (r *rig, err error) {
	r = &rig{}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.weston, err = p.root.Weston(ctx, lab.WestonOptions{Renderer: "pixman", W: width, H: height}); err != nil {
		return nil, err
	}
	r.broker, err = brokerproc.Start(ctx, p.root, brokerproc.Options{
		Binary: p.broker, Log: log, Env: r.weston.Env(), Bind: []string{r.weston.RuntimeDir},
		Args: []string{"--display", "wayland", "--wayland-display", r.weston.Socket(), "--virgl=" + virgl, "--hostmem", "256M",
			"--size", fmt.Sprintf("%dx%d", width, height), "--title", "gpubroker blobs"},
	})
	if err != nil {
		return nil, err
	}
	if r.vm, err = p.root.StartVM(ctx, lab.VMConfig{Devices: device(r.broker.Socket)}); err != nil {
		return nil, err
	}
	if r.qemu, err = processOf(r.broker.Socket, "qemu-system-x86"); err != nil {
		return nil, err
	}
	if err := r.vm.WaitBoot(ctx, 1); err != nil {
		return nil, err
	}
	if _, err := r.vm.PutFile(p.guest); err != nil {
		return nil, err
	}
	return r, r.load(ctx)
}

// load loads the guest's driver.
func (r *rig) load(ctx context.Context) error {
	_, err := r.vm.Check(ctx, `set -e
modprobe virtio_gpu
for i in $(seq 200); do [ -e /dev/dri/card0 ] && break; sleep 0.1; done
cp /lab/share/blobguest /tmp/blobguest
`)
	return err
}

func (r *rig) close() {
	if r.vm != nil {
		r.vm.Close()
	}
	if r.broker != nil {
		_, _ = r.broker.Stop() // an error is being returned already, or was asked for before
	}
	if r.weston != nil {
		r.weston.Stop()
	}
}

// stop ends everything in order; an end that is not clean is an error.
func (r *rig) stop() error {
	r.vm.Close()
	_, err := r.broker.Stop()
	r.weston.Stop()
	r.vm, r.broker, r.weston = nil, nil, nil
	return err
}

// features is what the guest's kernel says of its GPU.
func (r *rig) features(ctx context.Context) (string, error) {
	text, err := r.vm.Check(ctx, `dmesg | sed -n 's/.*\[drm\] features: //p' | tr '\n' ' '`)
	return strings.TrimSpace(text), err
}

// alive reports whether QEMU runs and answers.
func (r *rig) alive(ctx context.Context) bool {
	_, err := r.vm.QMP(ctx, "query-status", nil)
	return err == nil
}

// exit is how QEMU ended.
func (r *rig) exit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := r.vm.Wait(ctx); err != nil {
		text, _, _ := strings.Cut(err.Error(), "\n")
		return errors.New(text)
	}
	return nil
}

// lastWords are the last lines of a console, each but once.
func lastWords(console string) string {
	var lines []string
	for line := range strings.Lines(console) {
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-10):], "")
}

// left looks at what exists now.
func (r *rig) left(ctx context.Context) (l leftJSON, err error) {
	st, err := r.broker.Status()
	if err != nil {
		return l, err
	}
	l.WindowUsed, l.Placements, l.Resources = st.Window.Used, st.Window.Placements, len(st.Resources)
	if l.BrokerFDs, err = r.broker.OpenFDs(); err != nil {
		return l, err
	}
	ents, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.qemu))
	if err != nil {
		return l, err
	}
	l.QEMUFDs = len(ents)
	reply, err := r.vm.QMP(ctx, "human-monitor-command", map[string]string{"command-line": "info mtree -f"})
	if err != nil {
		return l, err
	}
	var text string
	if err := json.Unmarshal(reply, &text); err != nil {
		return l, err
	}
	l.MemoryRegions = strings.Count(text, "\n")
	return l, nil
}

// settle looks until what exists is as want, for a while: the last unmapping and
// the last status connection take a moment to go.
func (r *rig) settle(ctx context.Context, want leftJSON) (l leftJSON, err error) {
	end := time.Now().Add(10 * time.Second)
	for {
		if l, err = r.left(ctx); err != nil || l == want || time.Now().After(end) {
			return l, err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// idle waits until what exists stops changing.
func (r *rig) idle(ctx context.Context) (leftJSON, error) {
	last, err := r.left(ctx)
	for range 20 {
		if err != nil {
			return last, err
		}
		time.Sleep(300 * time.Millisecond)
		var now leftJSON
		if now, err = r.left(ctx); now == last {
			break
		}
		last = now
	}
	return last, err
}

func (r *rig) status() (broker.Status, error) { return r.broker.Status() }

// processOf finds the process called name whose command line has text in it.
func processOf(text, name string) (int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, dir := range dirs {
		comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		if strings.HasPrefix(string(comm), name) && strings.Contains(string(line), text) {
			var pid int
			_, err := fmt.Sscan(filepath.Base(dir), &pid)
			return pid, err
		}
	}
	return 0, errors.New("no process " + name + " found")
}
