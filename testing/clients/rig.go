package clients

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
)

// Programs are the two of gpubroker, built.
type Programs struct {
	Broker, Guest string // paths
}

// BuildPrograms builds them into a folder. It runs in the module.
func BuildPrograms(ctx context.Context, dir string) (Programs, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Programs{}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Programs{}, err
	}
	p := Programs{Broker: filepath.Join(dir, "gpubroker"), Guest: filepath.Join(dir, "gpubroker-guest")}
	if err := brokerproc.Build(ctx, p.Broker); err != nil {
		return Programs{}, err
	}
	return p, lab.Build(ctx, "github.com/gpubroker/gpubroker/cmd/gpubroker-guest", p.Guest)
}

// desk is the compositor that a broker shows windows on: a link to its socket, so
// that another one can take its place while everything runs.
type desk struct{ dir string }

func newDesk() (*desk, error) {
	dir, err := os.MkdirTemp("", "desk-")
	if err != nil {
		return nil, err
	}
	return &desk{dir}, nil
}

func (d *desk) socket() string { return filepath.Join(d.dir, "wayland") }

// use makes the compositor at a socket the desk's, for clients that come from now
// on.
func (d *desk) use(socket string) error {
	tmp := filepath.Join(d.dir, "next")
	if err := os.Symlink(socket, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, d.socket())
}

func (d *desk) remove() { _ = os.RemoveAll(d.dir) }

// Rig is a broker with what carries clients to it: a Place whose compositor can be
// changed.
type Rig interface {
	Place
	// Use makes c the compositor of clients that start from now on.
	Use(c *Compositor) error
	// Broker is the running gpubroker.
	Broker() *brokerproc.Broker
	// RestartGuest kills the guest's display server and starts it anew.
	RestartGuest(ctx context.Context) error
	// Healthy says what is wrong with what must survive anything that clients,
	// compositors and guests' servers do.
	Healthy(ctx context.Context) error
	// Log is what the guest's display server wrote.
	Log() string
	// Close ends everything and returns the broker's summary.
	Close() (summary string, err error)
}

// startBroker starts gpubroker with windows for programs on the desk.
func startBroker(ctx context.Context, root *lab.Root, p Programs, d *desk, log io.Writer, args ...string) (*brokerproc.Broker, error) {
	return brokerproc.Start(ctx, root, brokerproc.Options{
		Binary: p.Broker, Log: log,
		Args: append([]string{"--apps", "--apps-display", d.socket(), "--log-level", "debug"}, args...),
	})
}

// healthy says whether the broker answers.
func healthy(b *brokerproc.Broker) error {
	if _, err := b.Status(); err != nil {
		return fmt.Errorf("the broker does not answer: %w: %s", err, lastLines(b.Log(), 20))
	}
	return nil
}
