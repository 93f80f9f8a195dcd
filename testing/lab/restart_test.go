package lab_test

import (
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

func TestCompositorRestart(t *testing.T) {
	c := labtest.Weston(t, lab.WestonOptions{W: 320, H: 200})
	socket := c.Socket()
	for _, end := range []func() error{
		func() error { c.Kill(); return nil },
		func() error { return c.Signal(syscall.SIGKILL) },
	} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			conn, err := net.Dial("unix", socket)
			if err != nil {
				break
			}
			_ = conn.Close()
			if time.Since(start) > 5*time.Second {
				t.Fatal("weston still answers")
			}
		}
		if err := c.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if c.Socket() != socket {
			t.Errorf("socket is %s now, was %s", c.Socket(), socket)
		}
		if _, err := c.Screenshot(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
