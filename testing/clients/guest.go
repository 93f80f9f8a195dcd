package clients

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
)

// The transports of guests.
const (
	CrossDomain = "cross-domain"  // contexts of QEMU 11.1's generic vhost-user device
	Serial      = "virtio-serial" // a port beside QEMU's vhost-user-gpu-pci
)

// Transports are the names that [StartGuest] takes.
var Transports = []string{CrossDomain, Serial}

// generic is the device of QEMU 11.1 that passes everything on; the chardev is to be
// added.
const generic = lab.GenericGPU

// SerialPort is the name by which gpubroker-guest finds its port.
const SerialPort = "org.gpubroker.0"

// Guest is a Debian guest without any display server, with gpubroker as its GPU and
// gpubroker-guest as its display.
type Guest struct {
	*desk
	VM        *lab.VM
	transport string
	broker    *brokerproc.Broker
	n         int // clients started, for the names of their files
}

var _ Rig = (*Guest)(nil)

// GuestOptions say how a guest is to be. Logs may be nil.
type GuestOptions struct {
	Transport string // one of Transports
	Import    bool   // with the import device (QEMU 11.1)
	Log       io.Writer
	VM        lab.VMConfig // what is not to be as usual; Devices are added
}

// StartGuest boots a guest whose programs' windows go to the compositor that listens
// at a socket.
func StartGuest(ctx context.Context, root *lab.Root, p Programs, socket string, o GuestOptions) (*Guest, error) {
	d, err := newDesk()
	if err != nil {
		return nil, err
	}
	g := &Guest{desk: d, transport: o.Transport}
	if err := g.start(ctx, root, p, socket, o); err != nil {
		_, _ = g.Close()
		return nil, fmt.Errorf("guest (%s): %w", o.Transport, err)
	}
	return g, nil
}

func (g *Guest) start(ctx context.Context, root *lab.Root, p Programs, socket string, o GuestOptions) error {
	if err := g.use(socket); err != nil {
		return err
	}
	screen := "headless"
	serial, imports := filepath.Join(g.dir, "serial"), filepath.Join(g.dir, "import")
	var args, devices []string
	device := "vhost-user-gpu-pci"
	switch o.Transport {
	case CrossDomain:
		device, screen = generic, "none"
	case Serial:
		args = append(args, "--serial", serial)
		devices = append(devices, "-chardev", "socket,id=apps,path="+serial+",reconnect-ms=500",
			"-device", "virtserialport,chardev=apps,name="+SerialPort)
	default:
		return fmt.Errorf("want one of %v", Transports)
	}
	if o.Import {
		args = append(args, "--import-socket", imports)
		devices = append(devices, "-chardev", "socket,id=import,path="+imports, "-device", generic+",chardev=import")
	}
	var err error
	args = append(args, "--display", screen, "--virgl=on")
	if g.broker, err = startBroker(ctx, root, p, g.desk, o.Log, args...); err != nil {
		return err
	}
	o.VM.Devices = append(devices, "-chardev", "socket,id=gpu,path="+g.broker.Socket, "-device", device+",chardev=gpu")
	g.VM, err = root.StartVM(ctx, o.VM)
	if err != nil {
		return err
	}
	if _, err := g.VM.PutFile(p.Guest); err != nil {
		return err
	}
	if _, err := g.VM.Check(ctx, guestSetup); err != nil {
		return err
	}
	return g.RestartGuest(ctx)
}

const guestSetup = `set -e
modprobe virtio_gpu
for i in $(seq 600); do [ -e /dev/dri/renderD128 ] && break; sleep 0.1; done
ls /dev/dri
`

// serveGuest (re)starts the display's server.
const serveGuest = `[ -e /tmp/guest.pid ] && kill -KILL $(cat /tmp/guest.pid) && sleep 0.2
rm -f /run/user/0/wayland-*
setsid /lab/share/gpubroker-guest serve --transport %s --log-level debug </dev/null >>/lab/share/guest.log 2>&1 &
echo $! >/tmp/guest.pid
for i in $(seq 600); do
	[ -S /run/user/0/wayland-gpubroker ] && exit 0
	[ -e /proc/$! ] || break
	sleep 0.1
done
tail -n 20 /lab/share/guest.log
exit 1
`

// RestartGuest implements Rig.
func (g *Guest) RestartGuest(ctx context.Context) error {
	name := map[string]string{CrossDomain: "cross-domain", Serial: "serial"}[g.transport]
	_, err := g.VM.Check(ctx, fmt.Sprintf(serveGuest, name))
	return err
}

// Name implements Place.
func (g *Guest) Name() string { return g.transport }

// Slow implements Place.
func (g *Guest) Slow() int {
	if g.VM.Config.Accel == lab.AccelKVM {
		return 2
	}
	return 6
}

// Has implements Place.
func (g *Guest) Has(Need) (bool, string) { return true, "" }

// Use implements Rig.
func (g *Guest) Use(c *Compositor) error { return g.use(c.Socket()) }

// Broker implements Rig.
func (g *Guest) Broker() *brokerproc.Broker { return g.broker }

// Log is what gpubroker-guest wrote.
func (g *Guest) Log() string {
	body, _ := os.ReadFile(filepath.Join(g.VM.Share, "guest.log")) // there is none if it never ran
	return string(body)
}

// Healthy implements Rig: the guest answers, its display's server runs, and so does
// the broker.
func (g *Guest) Healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if _, err := g.VM.Check(ctx, `kill -0 $(cat /tmp/guest.pid)`); err != nil {
		return fmt.Errorf("in the guest: %w: %s", err, lastLines(g.Log(), 5))
	}
	return healthy(g.broker)
}

// Close implements Rig.
func (g *Guest) Close() (summary string, err error) {
	if g.VM != nil {
		g.VM.Close()
	}
	if g.broker == nil {
		err = errors.New("the broker never ran")
	} else {
		summary, err = g.broker.Stop()
	}
	g.remove()
	return summary, err
}

// inGuest is a client in a guest: its script, its output and its exit code are
// files of the share.
type inGuest struct {
	g    *Guest
	base string // of the files' names
	pid  int    // in the guest, of the leader of its session
}

// Start implements Place.
func (g *Guest) Start(ctx context.Context, script string) (Client, error) {
	g.n++
	c := &inGuest{g: g, base: fmt.Sprintf("client-%d", g.n)}
	if err := os.WriteFile(c.file(".sh"), []byte(preamble+script), 0o700); err != nil {
		return nil, err
	}
	out, err := g.VM.Check(ctx, fmt.Sprintf(`export WAYLAND_DISPLAY=wayland-gpubroker
cd /tmp
setsid bash -c 'bash /lab/share/%[1]s.sh; echo $? >/lab/share/%[1]s.rc' </dev/null >/lab/share/%[1]s.log 2>&1 &
echo $!`, c.base))
	if err != nil {
		return nil, err
	}
	if c.pid, err = strconv.Atoi(strings.TrimSpace(out)); err != nil {
		return nil, fmt.Errorf("start a client: %w", err)
	}
	return c, nil
}

func (c *inGuest) file(ext string) string { return filepath.Join(c.g.VM.Share, c.base+ext) }

func (c *inGuest) Ended(context.Context) (bool, int, error) {
	body, err := os.ReadFile(c.file(".rc"))
	if text := strings.TrimSpace(string(body)); err == nil && text != "" {
		code, err := strconv.Atoi(text)
		return true, code, err
	}
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return false, 0, err
}

func (c *inGuest) Log() string {
	body, _ := os.ReadFile(c.file(".log")) // there is none if it never ran
	return string(body)
}

func (c *inGuest) Stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, _, _ = c.g.VM.Run(ctx, fmt.Sprintf("kill -KILL -- -%d", c.pid)) // a guest that is gone took it along
	for _, ext := range []string{".sh", ".log", ".rc"} {
		_ = os.Remove(c.file(ext))
	}
}
