package inputcase

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gpubroker/gpubroker/broker/input"
	"github.com/gpubroker/gpubroker/testing/lab"
)

// Names of the devices, as the guest sees them.
const (
	MainName  = "gpubroker keyboard and pointer"
	TouchName = "gpubroker touch screen"
)

// Devices are QEMU's arguments for the devices behind these sockets; an empty path
// leaves one out.
func Devices(socket, touch string) (args []string) {
	for _, d := range [...]struct{ id, path string }{{"input", socket}, {"touch", touch}} {
		if d.path != "" {
			args = append(args, "-chardev", "socket,id="+d.id+",path="+d.path, "-device", "vhost-user-input-pci,chardev="+d.id)
		}
	}
	return args
}

// Guest reads input devices in a VM.
type Guest struct {
	VM *lab.VM
}

// Prepare builds evread, puts it into the guest and loads the drivers.
func Prepare(ctx context.Context, vm *lab.VM) (*Guest, error) {
	bin := filepath.Join(vm.Share, "evread")
	if err := lab.Build(ctx, "github.com/gpubroker/gpubroker/testing/inputcase/evread", bin); err != nil {
		return nil, err
	}
	g := &Guest{VM: vm}
	return g, g.Load(ctx)
}

// Load loads the drivers.
func (g *Guest) Load(ctx context.Context) error {
	_, err := g.VM.Check(ctx, "modprobe -a virtio_input evdev")
	return err
}

// Recording is what the guest read from a device since Record, and where to look
// next.
type Recording struct {
	file string
	seen int // lines
}

// Record starts to read a device; it goes on until the device is gone.
func (g *Guest) Record(ctx context.Context, device, file string) (*Recording, error) {
	r := &Recording{file: filepath.Join(g.VM.Share, file)}
	_, err := g.VM.Check(ctx, fmt.Sprintf("cd /lab/share; ./evread read '%s' %s >%s.err 2>&1 </dev/null & \n", device, file, file))
	if err != nil {
		return nil, err
	}
	for {
		if lines, _ := r.lines(); len(lines) > 0 && lines[0] == "ready" {
			r.seen = 1
			return r, nil
		}
		select {
		case <-ctx.Done():
			text, _ := os.ReadFile(r.file + ".err")
			return nil, fmt.Errorf("evread does not start: %w: %s", ctx.Err(), text)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (r *Recording) lines() ([]string, error) {
	body, err := os.ReadFile(r.file)
	if err != nil {
		return nil, err
	}
	text := string(body)
	text = text[:strings.LastIndexByte(text, '\n')+1]
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n"), nil
}

// ErrTimeout says that the guest did not read what was waited for.
var ErrTimeout = errors.New("not read by the guest in time")

// Until waits until done says that the new events are complete, and returns them.
// After the timeout it returns what there is, and ErrTimeout.
func (r *Recording) Until(timeout time.Duration, done func([]input.Event) bool) ([]input.Event, error) {
	for end := time.Now().Add(timeout); ; time.Sleep(10 * time.Millisecond) {
		lines, err := r.lines()
		if err != nil {
			return nil, err
		}
		events, err := parse(lines[r.seen:])
		if err != nil {
			return nil, err
		}
		if done(events) {
			r.seen = len(lines)
			return events, nil
		}
		if time.Now().After(end) {
			r.seen = len(lines)
			return events, ErrTimeout
		}
	}
}

// Next waits for n events and a little longer, so that one too many is seen.
func (r *Recording) Next(timeout time.Duration, n int) ([]input.Event, error) {
	events, err := r.Until(timeout, func(e []input.Event) bool { return len(e) >= n })
	if err != nil {
		return events, err
	}
	more, err := r.Settle(timeout, 100*time.Millisecond)
	return slices.Concat(events, more), err
}

// Settle returns the new events once none came for the time of quiet.
func (r *Recording) Settle(timeout, quiet time.Duration) ([]input.Event, error) {
	n, since := -1, time.Now()
	return r.Until(timeout, func(events []input.Event) bool {
		if len(events) != n {
			n, since = len(events), time.Now()
		}
		return time.Since(since) > quiet
	})
}

func parse(lines []string) ([]input.Event, error) {
	events := make([]input.Event, 0, len(lines))
	for _, line := range lines {
		var typ, code uint16
		var value int32
		if _, err := fmt.Sscanf(line, "%d %d %d", &typ, &code, &value); err != nil {
			return nil, fmt.Errorf("line %q: %w", line, err)
		}
		events = append(events, input.Event{Type: typ, Code: code, Value: uint32(value)})
	}
	return events, nil
}
