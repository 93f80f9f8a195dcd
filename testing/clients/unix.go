package clients

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
)

// Unix is gpubroker and gpubroker-guest on this machine, with a unix socket between
// them: all of the way of a window but the virtual machine.
type Unix struct {
	*desk
	root     *lab.Root
	programs Programs
	log      io.Writer
	broker   *brokerproc.Broker
	guest    *local
}

var _ Rig = (*Unix)(nil)

// StartUnix starts both programs. The log may be nil.
func StartUnix(ctx context.Context, root *lab.Root, p Programs, comp *Compositor, log io.Writer) (*Unix, error) {
	d, err := newDesk()
	if err != nil {
		return nil, err
	}
	u := &Unix{desk: d, root: root, programs: p, log: log}
	if err := u.start(ctx, comp); err != nil {
		_, _ = u.Close()
		return nil, err
	}
	return u, nil
}

func (u *Unix) start(ctx context.Context, comp *Compositor) error {
	if err := u.use(comp.Socket()); err != nil {
		return err
	}
	if err := os.Mkdir(u.runtime(), 0o700); err != nil {
		return err
	}
	var err error
	u.broker, err = startBroker(ctx, u.root, u.programs, u.desk, u.log,
		"--display", "none", "--virgl=off", "--apps-socket", u.stream())
	if err != nil {
		return err
	}
	return u.startGuest(ctx)
}

func (u *Unix) stream() string  { return filepath.Join(u.dir, "apps") }
func (u *Unix) runtime() string { return filepath.Join(u.dir, "guest") }
func (u *Unix) display() string { return filepath.Join(u.runtime(), "wayland-0") }

func (u *Unix) startGuest(ctx context.Context) error {
	var err error
	u.guest, err = startLocal(u.root, lab.CommandOptions{
		Env: []string{"XDG_RUNTIME_DIR=" + u.runtime()}, Bind: []string{filepath.Dir(u.programs.Guest)},
	}, fmt.Sprintf("exec %s serve --transport unix:%s --display %s", u.programs.Guest, u.stream(), u.display()))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		if _, err := os.Stat(u.display()); err == nil {
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
func (u *Unix) Name() string { return "unix" }

// Slow implements Place.
func (u *Unix) Slow() int { return 2 }

// Has implements Place.
func (u *Unix) Has(n Need) (bool, string) {
	if n&NeedDMABuf != 0 {
		return false, "this machine has no render node"
	}
	return true, ""
}

// Start implements Place.
func (u *Unix) Start(_ context.Context, script string) (Client, error) {
	return startLocal(u.root, lab.CommandOptions{Env: []string{
		"XDG_RUNTIME_DIR=" + u.runtime(), "WAYLAND_DISPLAY=" + u.display(), "LIBGL_ALWAYS_SOFTWARE=1",
	}}, script)
}

// Use implements Rig.
func (u *Unix) Use(c *Compositor) error { return u.use(c.Socket()) }

// Broker implements Rig.
func (u *Unix) Broker() *brokerproc.Broker { return u.broker }

// RestartGuest implements Rig.
func (u *Unix) RestartGuest(ctx context.Context) error {
	u.guest.Stop()
	_ = os.Remove(u.display())
	return u.startGuest(ctx)
}

// Healthy implements Rig.
func (u *Unix) Healthy(ctx context.Context) error {
	if err := alive(ctx, u.guest); err != nil {
		return fmt.Errorf("gpubroker-guest: %w", err)
	}
	return healthy(u.broker)
}

// Log is what gpubroker-guest wrote.
func (u *Unix) Log() string { return u.guest.Log() }

// Close implements Rig.
func (u *Unix) Close() (summary string, err error) {
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
