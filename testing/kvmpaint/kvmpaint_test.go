//go:build amd64

package main

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
	"github.com/gpubroker/gpubroker/testing/golden"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

// painted is what a guest painted.
func painted(t *testing.T) *dmabuf.Buffer {
	t.Helper()
	if _, err := os.Stat("/dev/kvm"); err != nil {
		t.Skipf("this machine has no KVM to run a guest in: %v", err)
	}
	b, err := paint()
	if errors.Is(err, os.ErrPermission) {
		t.Skipf("this user may not use KVM: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Release)
	return b
}

func TestPaint(t *testing.T) {
	img := imageOf(painted(t))
	for y := range height {
		for x := range width {
			if got := img.NRGBAAt(x, y); got != at(x, y) {
				t.Fatalf("pixel %d,%d is %v, want %v", x, y, got, at(x, y))
			}
		}
	}
}

// TestShown: the compositor reads the pages that the guest wrote.
func TestShown(t *testing.T) {
	w := labtest.Weston(t, lab.WestonOptions{Renderer: "pixman", W: width, H: height})
	b := painted(t)
	sink, err := show(b, w.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		sink.Drop(b)
		if err := sink.Close(); err != nil {
			t.Error(err)
		}
	}()
	end := time.Now().Add(10 * time.Second)
	for {
		shot, err := w.Screenshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		diff := golden.Compare(shot, imageOf(b), golden.Tolerance{})
		if diff.OK() {
			break
		}
		if time.Now().After(end) {
			t.Fatal(diff)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if n := sink.Stats().BytesCopied.Load(); n != 0 {
		t.Errorf("%d bytes copied", n)
	}
}
