package guests_test

import (
	"fmt"
	"image"
	"image/color"
	"strconv"
	"strings"
	"testing"

	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
	"github.com/gpubroker/gpubroker/testing/report"
)

// TestQEMUDisplay shows guests in QEMU's own window, on an X server. Here the
// pixels go through QEMU's display socket: the machine has no dma-bufs.
func TestQEMUDisplay(t *testing.T) {
	t.Parallel()
	for _, version := range []string{lab.QEMU11, lab.QEMU10} {
		t.Run("QEMU "+version, func(t *testing.T) {
			x := labtest.Xvfb(t, 800, 600)
			r := &rig{T: t, broker: startBroker(t, brokerproc.Options{Args: []string{"--display", "qemu", "--virgl=on"}})}
			r.vm = labtest.VM(t, lab.VMConfig{
				QEMU: version, Devices: r.gpu("vhost-user-gpu-pci"), Env: append(x.Env(), "LIBGL_ALWAYS_SOFTWARE=1"),
				// With zoom-to-fit the guest follows the window, and not the window the
				// guest: without a window manager QEMU 10 shrinks row by row otherwise,
				// with its own virtio-gpu too.
				Display: "gtk,gl=on,show-menubar=off,show-tabs=off,zoom-to-fit=on",
			})
			share(t, r.vm, bin(t, "guestpaint"))
			check(t, r.vm, loadDriver)
			w, h := guestSize(t, r.vm)
			window := func() (image.Image, error) {
				img, err := x.Screenshot()
				if err != nil {
					return nil, err
				}
				// Without a window manager the window is in the corner. It is as large
				// as QEMU wants, and the guest's screen is as large as the window.
				return cut(img, image.Rect(0, 0, w, h)), nil
			}
			t.Run("frame buffer", func(t *testing.T) {
				check(t, r.vm, "/lab/share/guestpaint fb")
				showsEventually(t, "QEMU frame buffer", window, painted(w, h), exact)
			})
			t.Run("cursor", func(t *testing.T) {
				check(t, r.vm, paintServer)
				for _, at := range []image.Point{{300, 200}, {17, 403}} {
					paint(t, r.vm, "cursor %d %d 0 0", at.X, at.Y)
					showsEventually(t, "QEMU cursor", window, withGtkCursor(painted(w, h), at.X, at.Y), blended)
				}
				// Hiding cannot be seen: QEMU's gtk window does not do it for any device.
				check(t, r.vm, endPaint)
			})
			t.Run("3D", func(t *testing.T) {
				check(t, r.vm, startCube)
				before := frames(r.status())
				eventually(t, cubeTime, "kmscube turns in QEMU's window", func() bool {
					img, err := window()
					if err != nil {
						t.Fatal(err)
					}
					colours, drawn := report.Colours(img)
					return frames(r.status()) >= before+20 && colours >= 50 && drawn >= 0.05
				}, func() string { return r.try("cat " + lab.KmscubeLog) })
			})
			r.noErrors(t)
			if st := r.status(); st.Display != "qemu" || st.BytesCopied == 0 || st.Frames.DMABuf != 0 {
				t.Errorf("display %s, %d bytes copied, frames %+v", st.Display, st.BytesCopied, st.Frames)
			}
		})
	}
}

// guestSize returns the size of the guest's console.
func guestSize(t *testing.T, vm *lab.VM) (w, h int) {
	t.Helper()
	out := check(t, vm, "cat /sys/class/graphics/fb0/virtual_size")
	if n, err := fmt.Sscanf(out, "%d,%d", &w, &h); n != 2 {
		t.Fatalf("size of the frame buffer %s: %v", strconv.Quote(strings.TrimSpace(out)), err)
	}
	return w, h
}

// withGtkCursor draws guestpaint's cursor as QEMU's gtk window does, for its own
// virtio-gpu device as well: it takes the bytes B, G, R, A for R, G, B, A, and
// premultiplied colours for straight ones.
func withGtkCursor(img *image.NRGBA, x, y int) *image.NRGBA {
	return drawCursor(img, x, y, func(c color.NRGBA) color.NRGBA {
		pre := color.RGBAModel.Convert(c).(color.RGBA)
		return color.NRGBA{R: pre.B, G: pre.G, B: pre.R, A: pre.A}
	})
}
