package guests_test

import (
	"image"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// firmwareTime is what OVMF may take to draw its logo under emulation.
const firmwareTime = 60 * time.Second

// TestFirmware: OVMF draws its logo with its own virtio-gpu driver and hands over
// to Linux, and after a reset it all comes again. Each time QEMU gives a new
// display socket.
func TestFirmware(t *testing.T) {
	t.Parallel()
	x := labtest.Xvfb(t, 800, 600)
	r := &rig{T: t, broker: startBroker(t, brokerproc.Options{Args: []string{"--display", "qemu", "--virgl=on"}})}
	r.vm = labtest.VM(t, lab.VMConfig{
		UEFI: true, SMP: 1, Devices: r.gpu("vhost-user-gpu-pci"), Env: append(x.Env(), "LIBGL_ALWAYS_SOFTWARE=1"),
		Display: "gtk,gl=on,show-menubar=off,show-tabs=off,zoom-to-fit=on",
	})
	share(t, r.vm, bin(t, "guestpaint"))
	for boot := 1; boot <= 2; boot++ {
		eventually(t, firmwareTime, "the firmware's logo is in QEMU's window", func() bool {
			img, err := x.Screenshot()
			if err != nil {
				t.Fatal(err)
			}
			return logo(img)
		})
		if err := r.vm.WaitBoot(t.Context(), boot); err != nil {
			t.Fatal(err)
		}
		if st := r.status(); len(st.Resources)+len(st.Contexts)+len(st.Scanouts) > 0 {
			t.Errorf("the firmware left %d resources, %d contexts, %d scanouts", len(st.Resources), len(st.Contexts), len(st.Scanouts))
		}
		check(t, r.vm, loadDriver+"/lab/share/guestpaint fb")
		w, h := guestSize(t, r.vm)
		showsEventually(t, "Linux after the firmware", func() (image.Image, error) {
			img, err := x.Screenshot()
			if err != nil {
				return nil, err
			}
			return cut(img, image.Rect(0, 0, w, h)), nil
		}, painted(w, h), exact)
		// The first socket is no reconnect.
		if got, want := r.status().Reconnects, uint64(2*boot-1); got != want {
			t.Errorf("boot %d: QEMU gave %d more display sockets, want %d", boot, got, want)
		}
		if boot == 1 {
			qmp(t, r.vm, "system_reset", nil)
		}
	}
	r.noErrors(t)
}

// logo reports whether OVMF's logo is there: half of it is orange on white.
func logo(img image.Image) bool {
	orange, white := 0, 0
	b := img.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			switch r, g, bl, _ := img.At(x, y).RGBA(); {
			case r > 0xc000 && g > 0x4000 && g < 0xa000 && bl < 0x5000:
				orange++
			case r > 0xf000 && g > 0xf000 && bl > 0xf000:
				white++
			}
		}
	}
	return orange >= 40 && white >= 500
}
