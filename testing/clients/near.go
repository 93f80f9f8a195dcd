package clients

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
)

// VSock is the transport name of [StartVSock]'s rig.
const VSock = "vsock"

// Near is gpubroker and gpubroker-guest on this machine, with a socket between them: all
// of the way of a window but the virtual machine.
type Near struct {
	*desk
	root     *lab.Root
	programs Programs
	log      io.Writer
	name     string
	listen   []string // what the broker is told
	way      string   // what gpubroker-guest is told
	broker   *brokerproc.Broker
	guest    *local
}

var _ Rig = (*Near)(nil)

// StartUnix starts both programs, with a unix socket between them. The log may be nil.
func StartUnix(ctx context.Context, root *lab.Root, p Programs, comp *Compositor, log io.Writer) (*Near, error) {
	d, err := newDesk()
	if err != nil {
		return nil, err
	}
	stream := filepath.Join(d.dir, "apps")
	return startNear(ctx, &Near{
		desk: d, root: root, programs: p, log: log,
		name: "unix", listen: []string{"--apps-socket", stream}, way: "unix:" + stream,
	}, comp)
}

// StartVSock starts both programs, with an AF_VSOCK port of the loopback between them. The
// log may be nil.
func StartVSock(ctx context.Context, root *lab.Root, p Programs, comp *Compositor, port uint32, log io.Writer) (*Near, error) {
	d, err := newDesk()
	if err != nil {
		return nil, err
	}
	return startNear(ctx, &Near{
		desk: d, root: root, programs: p, log: log,
		name: VSock, listen: []string{"--vsock", fmt.Sprintf("%d:%d", unix.VMADDR_CID_LOCAL, port)},
		way: fmt.Sprintf("vsock:%d:%d", unix.VMADDR_CID_LOCAL, port),
	}, comp)
}

func startNear(ctx context.Context, u *Near, comp *Compositor) (*Near, error) {
	if err := u.start(ctx, comp); err != nil {
		_, _ = u.Close()
		return nil, fmt.Errorf("%s: %w", u.name, err)
	}
	return u, nil
}

func (u *Near) start(ctx context.Context, comp *Compositor) error {
	if err := u.use(comp.Socket()); err != nil {
		return err
	}
	if err := os.Mkdir(u.runtime(), 0o700); err != nil {
		return err
	}
	if err := u.StartBroker(ctx); err != nil {
		return err
	}
	return u.startGuest(ctx)
}

// StartBroker starts gpubroker, again if the one before has ended.
func (u *Near) StartBroker(ctx context.Context) error {
	b, err := startBroker(ctx, u.root, u.programs, u.desk, u.log,
		append([]string{"--display", "none", "--virgl=off"}, u.listen...)...)
	if err == nil {
		u.broker = b
	}
	return err
}

func (u *Near) runtime() string { return filepath.Join(u.dir, "guest") }
func (u *Near) display() string { return filepath.Join(u.runtime(), "wayland-0") }

func (u *Near) startGuest(ctx context.Context) error {
	var err error
	u.guest, err = startLocal(u.root, lab.CommandOptions{
		Env: []string{"XDG_RUNTIME_DIR=" + u.runtime()}, Bind: []string{filepath.Dir(u.programs.Guest)},
	}, fmt.Sprintf("exec %s serve --transport %s --display %s", u.programs.Guest, u.way, u.display()))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		if lab.Listening(u.display()) {
			return nil
		}
		if err := alive(ctx, u.guest); err != nil {
			return fmt.Errorf("gpubroker-guest: %w", err)
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("gpubroker-guest does not listen: %w: %s", err, lastLines(u.guest.Log(), 5))
		}
	}
}

// Name implements Place.
func (u *Near) Name() string { return u.name }

// Slow implements Place.
func (u *Near) Slow() int {
	if u.root.InGuest() { // emulated
		return 6
	}
	return 2
}

// Has implements Place.
func (u *Near) Has(n Need) (bool, string) {
	if n&NeedDMABuf != 0 {
		return false, "this machine has no render node"
	}
	return true, ""
}

// Start implements Place.
func (u *Near) Start(_ context.Context, script string) (Client, error) {
	return startLocal(u.root, lab.CommandOptions{Env: []string{
		"XDG_RUNTIME_DIR=" + u.runtime(), "WAYLAND_DISPLAY=" + u.display(), "LIBGL_ALWAYS_SOFTWARE=1",
	}}, script)
}

// Use implements Rig.
func (u *Near) Use(c *Compositor) error { return u.use(c.Socket()) }

// Broker implements Rig.
func (u *Near) Broker() *brokerproc.Broker { return u.broker }

// RestartGuest implements Rig.
func (u *Near) RestartGuest(ctx context.Context) error {
	u.guest.Stop()
	_ = os.Remove(u.display())
	return u.startGuest(ctx)
}

// Healthy implements Rig.
func (u *Near) Healthy(ctx context.Context) error {
	if err := alive(ctx, u.guest); err != nil {
		return fmt.Errorf("gpubroker-guest: %w", err)
	}
	return healthy(u.broker)
}

// Log is what gpubroker-guest wrote.
func (u *Near) Log() string { return u.guest.Log() }

// Close implements Rig.
func (u *Near) Close() (summary string, err error) {
	if u.guest != nil {
		u.guest.Stop()
	}
	if u.broker == nil {
		err = errors.New("the broker never ran")
	} else {
		summary, err = u.broker.Stop()
	}
	u.remove()
	return summary, err
}
