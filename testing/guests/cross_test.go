package guests_test

import (
	"context"
	"image"
	"image/color"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// TestCrossDomain: in a guest without a screen a program that speaks cross-domain
// itself, on the stock driver, has its window on the compositor; its pixels are in
// memory of the host, and nobody copied them.
func TestCrossDomain(t *testing.T) {
	w := labtest.Weston(t, lab.WestonOptions{W: screenW, H: screenH})
	file := filepath.Join(t.TempDir(), "recording")
	b := startBroker(t, brokerproc.Options{
		Args: []string{"--display", "none", "--apps", "--apps-display", w.Socket(), "--vm-name", "lab", "--hostmem", "256M", "--record", file},
		Env:  w.Env(), Bind: []string{w.RuntimeDir, filepath.Dir(file)},
	})
	r := &rig{T: t, broker: b, weston: w}
	vm := labtest.VM(t, lab.VMConfig{Devices: r.gpu(lab.GenericGPU)})
	r.vm = vm
	program := filepath.Join(filepath.Dir(bin(t, "gpubroker")), "crossguest")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../crossguest")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build crossguest: %v\n%s", err, text)
	}
	share(t, vm, program)
	out := check(t, vm, `modprobe virtio_gpu
for i in $(seq 100); do [ -e /dev/dri/renderD128 ] && break; sleep 0.1; done
dmesg | grep -i virtio_gpu
cp /lab/share/crossguest /tmp/; chmod +x /tmp/crossguest
/tmp/crossguest >/tmp/cross.log 2>&1 &
echo $! >/tmp/cross.pid
`)
	t.Log(out)
	said := func() string { return r.try("cat /tmp/cross.log; dmesg | tail -n 5") }
	eventually(t, 60*time.Second, "a window", func() bool {
		if text := said(); !strings.Contains(text, "shown") {
			return false
		}
		st := r.status()
		return len(st.Windows) == 1 && st.Windows[0].Frames["shared"] == 1
	}, said)
	st := r.status()
	win := st.Windows[0]
	if win.App != "org.gpubroker.crossguest" || win.Title != "crossguest" || win.Transport != "cross-domain" || win.BytesCopied != 0 {
		t.Errorf("%+v", win)
	}
	if st.Errors > 0 {
		t.Errorf("%d commands failed", st.Errors)
	}
	eventually(t, 20*time.Second, "its colours on the screen", func() bool { return hasGradient(t, r.shoot(t)) }, said)
	// The guest's program ends: its window goes, and the context with all that it had.
	check(t, vm, "kill $(cat /tmp/cross.pid)")
	eventually(t, 20*time.Second, "the window is gone", func() bool {
		st := r.status()
		return len(st.Windows) == 0 && st.Apps.Clients == 0 && st.Counts.Contexts == 0
	}, said)
	// Played without a compositor, the same commands have the same answers.
	if rep := replay(t, file, "/dev/null"); rep.Different != 0 || rep.Unanswered != 0 || rep.Skipped == 0 || rep.Commands != rep.Compared+rep.Skipped {
		t.Errorf("replay: %+v", rep)
	}
	if st := r.status(); st.Window.Placements > 0 {
		t.Errorf("%d blobs stay mapped", st.Window.Placements)
	}
}

// hasGradient looks for the window's corners on a screenshot.
func hasGradient(t *testing.T, shoot func() (image.Image, error)) bool {
	t.Helper()
	img, err := shoot()
	if err != nil {
		if t.Context().Err() == context.Canceled {
			t.Fatal(err)
		}
		return false
	}
	b := img.Bounds()
	red, green := false, false
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			c := color.NRGBAModel.Convert(img.At(x, y)).(color.NRGBA)
			red = red || c.R > 250 && c.G < 5 && c.B == 0x40
			green = green || c.G > 250 && c.R < 5 && c.B == 0x40
		}
	}
	return red && green
}
