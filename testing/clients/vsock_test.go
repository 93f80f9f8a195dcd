package clients_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/apps"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/clients"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// programsEnv is the folder of both programs in the machine of TestVSock.
const programsEnv = "GPUBROKER_PROGRAMS"

// vsockScript copies the programs to memory. The modules are what a host of guests with
// vsock has, and what has no guest: the loopback.
const vsockScript = `set -e
modprobe -a vsock vsock_loopback vhost_vsock
mkdir /tmp/bin
cp /lab/share/gpubroker /lab/share/gpubroker-guest /lab/share/clients.test /tmp/bin/
cd /tmp/bin
export GPUBROKER_VM=1 GPUBROKER_PROGRAMS=/tmp/bin
exec ./clients.test -test.v -test.run '^%s$' -test.timeout 20m
`

// TestVSock boots a machine whose kernel has AF_VSOCK and runs TestVSockHost in it.
func TestVSock(t *testing.T) { inVSockHost(t, "TestVSockHost") }

// TestNestedVSock has a guest in that machine.
func TestNestedVSock(t *testing.T) {
	labtest.Full(t)
	inVSockHost(t, "TestVSockGuest")
}

// inVSockHost runs a test in a machine with AF_VSOCK.
func inVSockHost(t *testing.T, name string) {
	t.Helper()
	if labtest.Root(t).InGuest() {
		t.Skip("this is the machine already")
	}
	p, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	tests := filepath.Join(t.TempDir(), "clients.test")
	if err := lab.BuildTest(t.Context(), ".", tests); err != nil {
		t.Fatal(err)
	}
	vm := labtest.HostVM(t, lab.VMConfig{Output: t.Output()})
	for _, file := range []string{p.Broker, p.Guest, tests} {
		if _, err := vm.PutFile(file); err != nil {
			t.Fatal(err)
		}
	}
	out, code, err := vm.Run(t.Context(), fmt.Sprintf(vsockScript, name))
	if err != nil || code != 0 || !strings.Contains(out, "--- PASS: "+name) {
		t.Errorf("in the machine: code %d, %v", code, err)
	}
}

// Ports of AF_VSOCK.
const (
	vsockPort    = apps.DefaultPort
	strangerPort = vsockPort + 1
	nobodyPort   = vsockPort + 2
)

// strangerCID is a guest that is not there.
const strangerCID = 77

// TestVSockHost has clients over AF_VSOCK of this kernel; TestVSock runs it where there is
// one.
func TestVSockHost(t *testing.T) {
	root, p := vsockPrograms(t)
	// A desktop shows several windows at a time, where a kiosk's lower ones get no frames.
	desktop := labtest.Weston(t, lab.WestonOptions{Shell: "desktop", W: 800, H: 600})
	comp := &clients.Compositor{Name: "weston-desktop", Compositor: desktop}
	rig, err := clients.StartVSock(t.Context(), root, p, comp, vsockPort, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			t.Logf("gpubroker-guest said:\n%s\ngpubroker said:\n%s", rig.Log(), rig.Broker().Log())
		}
		if _, err := rig.Close(); err != nil {
			t.Error(err)
		}
	}()
	direct := &clients.Direct{Root: root, Compositor: comp}
	// run is a program of a guest, with a server of its own for the port.
	run := func(t *testing.T, port uint32, program string) clients.Client {
		t.Helper()
		return startClient(t, direct, fmt.Sprintf("exec %s run --transport vsock:%d:%d --display wayland-%d %s",
			p.Guest, unix.VMADDR_CID_LOCAL, port, time.Now().UnixNano(), program))
	}

	t.Run("several", func(t *testing.T) {
		first := startClient(t, rig, "exec weston-simple-shm")
		waitFrames(t, rig.Broker(), 1, 3, first)
		second := run(t, vsockPort, "weston-simple-damage --width=300 --height=200")
		waitFrames(t, rig.Broker(), 2, 3, first, second)
		second.Stop()
		eventually(t, "the second one's window goes", func() (bool, string) {
			st := status(t, rig.Broker())
			return len(st.Windows) == 1 && st.Apps.Link.Transports[apps.TransportVSock].Clients == 1, describe(st)
		})
		waitFrames(t, rig.Broker(), 1, 3, first) // and the first goes on
	})
	t.Run("nobody listens", func(t *testing.T) {
		ends(t, run(t, nobodyPort, "weston-simple-shm"), "vsock 1:4673604", "nobody listens there")
	})
	t.Run("another guest's port", func(t *testing.T) {
		b, err := brokerproc.Start(t.Context(), root, brokerproc.Options{Binary: p.Broker, Args: []string{
			"--display", "none", "--virgl=off", "--apps", "--apps-display", desktop.Socket(),
			"--vsock", fmt.Sprintf("%d:%d", strangerCID, strangerPort),
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if _, err := b.Stop(); err != nil {
				t.Error(err)
			}
		}()
		ends(t, run(t, strangerPort, "weston-simple-shm"), "you have CID 1, it is for CID 77 alone")
		st := status(t, b)
		if got := st.Apps.Link.Transports[apps.TransportVSock]; got.Refused != 1 || got.Clients != 0 || got.Served != 0 || len(st.Windows) > 0 {
			t.Errorf("the broker counted %s", describe(st))
		}
		if !strings.Contains(b.Log(), "another guest's vsock connection") {
			t.Errorf("its log says nothing of it:\n%s", b.Log())
		}
	})
	t.Run("a port that is taken", func(t *testing.T) {
		b, err := brokerproc.Start(t.Context(), root, brokerproc.Options{Binary: p.Broker, Args: []string{
			"--display", "none", "--virgl=off", "--apps", "--apps-display", desktop.Socket(), "--vsock", fmt.Sprint(vsockPort),
		}})
		if err == nil {
			_, _ = b.Stop()
			t.Fatal("two brokers listen at one port")
		}
		if want := fmt.Sprintf("vsock port %d", vsockPort); !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "address already in use") {
			t.Errorf("the second one says %v", err)
		}
	})
	if st := status(t, rig.Broker()); st.Apps.Faults != 0 || st.Apps.Link.Transports[apps.TransportVSock].Refused != 0 {
		t.Errorf("before its end: %s", describe(st))
	}
	client := startClient(t, rig, "exec weston-simple-shm")
	waitFrames(t, rig.Broker(), 1, 3, client)
	// gpubroker-guest goes on after each end, and the next client finds the next broker.
	for _, end := range []struct {
		name string
		end  func() error
		says string
	}{
		{"gpubroker ends", func() error { _, err := rig.Broker().Stop(); return err }, apps.ErrClosed.Error()},
		{"gpubroker is killed", func() error { rig.Broker().Kill(); return nil }, "the host ended the connection"},
	} {
		if err := end.end(); err != nil {
			t.Errorf("%s: %v", end.name, err)
		}
		ends(t, client, end.says)
		ends(t, startClient(t, rig, "exec weston-simple-shm"), "nobody listens there")
		if err := rig.StartBroker(t.Context()); err != nil {
			t.Fatalf("after %s: %v", end.name, err)
		}
		client = startClient(t, rig, "exec weston-simple-shm")
		waitFrames(t, rig.Broker(), 1, 3, client)
	}
	if err := rig.Healthy(t.Context()); err != nil {
		t.Error(err)
	}
}

// vsockPrograms skips a test anywhere but in the machine.
func vsockPrograms(t *testing.T) (*lab.Root, clients.Programs) {
	t.Helper()
	dir := os.Getenv(programsEnv)
	if dir == "" {
		t.Skip("runs inside the virtual machine of TestVSock or TestNestedVSock")
	}
	return labtest.Root(t), clients.Programs{Broker: filepath.Join(dir, "gpubroker"), Guest: filepath.Join(dir, "gpubroker-guest")}
}

// startClient runs a script until the end of the test.
func startClient(t *testing.T, at clients.Place, script string) clients.Client {
	t.Helper()
	c, err := at.Start(t.Context(), script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return c
}

// waitFrames waits until the broker has n windows over vsock, each with more frames than
// when it was called, and all clients run.
func waitFrames(t *testing.T, b *brokerproc.Broker, n int, frames uint64, running ...clients.Client) {
	t.Helper()
	before := map[string]uint64{}
	for _, w := range status(t, b).Windows {
		before[w.Client] += sum(w.Frames)
	}
	eventually(t, fmt.Sprintf("%d windows with %d more frames", n, frames), func() (bool, string) {
		for _, c := range running {
			if ended, code, err := c.Ended(t.Context()); ended || err != nil {
				t.Fatalf("a client ended with code %d (%v):\n%s", code, err, c.Log())
			}
		}
		st := status(t, b)
		ok := len(st.Windows) == n
		for _, w := range st.Windows {
			ok = ok && w.Transport == clients.VSock && sum(w.Frames) >= before[w.Client]+frames
		}
		return ok && st.Apps.Faults == 0, describe(st)
	})
}

func sum(frames map[string]uint64) uint64 {
	n := uint64(0)
	for _, f := range frames {
		n += f
	}
	return n
}

// ends waits until a client has ended, and said why. The code is the client's own affair:
// weston-simple-shm's is 0.
func ends(t *testing.T, c clients.Client, says ...string) {
	t.Helper()
	eventually(t, "the client ends", func() (bool, string) {
		ended, _, err := c.Ended(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return ended, c.Log()
	})
	for _, s := range says {
		if !strings.Contains(c.Log(), s) {
			t.Errorf("the client does not say %q:\n%s", s, c.Log())
		}
	}
	t.Logf("the client said: %s", strings.TrimSpace(c.Log()))
}

// eventually waits, as long as an emulated machine may take.
func eventually(t *testing.T, what string, ok func() (bool, string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		done, seen := ok()
		if done {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not so: %s", what, seen)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func status(t *testing.T, b *brokerproc.Broker) *broker.Status {
	t.Helper()
	st, err := b.Status()
	if err != nil {
		t.Fatal(err)
	}
	if st.Apps == nil {
		t.Fatal("no apps in the status")
	}
	return &st
}

// describe is what a Status says of programs.
func describe(st *broker.Status) string {
	return fmt.Sprintf("apps %+v, windows %+v", *st.Apps, st.Windows)
}
