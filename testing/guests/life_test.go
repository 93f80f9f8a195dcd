package guests_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// rounds is how often each event of a machine's life comes in a row.
const rounds = 10

// machine is a broker in a compositor with a guest on one CPU, so that two of them
// fit on two.
func machine(t *testing.T) *rig {
	t.Helper()
	t.Parallel()
	r := waylandRig(t, "--virgl=on")
	r.vm = labtest.VM(t, lab.VMConfig{SMP: 1, Devices: r.gpu("vhost-user-gpu-pci")})
	share(t, r.vm, bin(t, "guestpaint"))
	return r
}

// noErrors: nothing that an ordinary guest does is an error.
func (r *rig) noErrors(t *testing.T) {
	t.Helper()
	if st := r.status(); st.Errors+st.RingErrors > 0 {
		t.Errorf("%d commands failed, %d ring errors", st.Errors, st.RingErrors)
	}
}

// TestStopAndReload: a machine stops and goes on while it draws, and its driver is
// unloaded and loaded; what the broker holds returns to what it was.
func TestStopAndReload(t *testing.T) {
	r := machine(t)

	t.Run("stop and cont", func(t *testing.T) {
		check(t, r.vm, startCube+lab.EndKmscube) // whatever stays after a first run
		before := r.footprint()
		check(t, r.vm, startCube)
		r.turns(t, 10)
		var half footprint
		for i := range rounds {
			if i == rounds/2 {
				half = r.footprint()
			}
			qmp(t, r.vm, "stop", nil)
			stopped := r.status()
			time.Sleep(100 * time.Millisecond)
			if now := r.status(); now.Commands != stopped.Commands {
				t.Errorf("%d commands were served while the machine was stopped", now.Commands-stopped.Commands)
			}
			qmp(t, r.vm, "cont", nil)
			r.turns(t, 5)
		}
		check(t, r.vm, lab.EndKmscube)
		r.settlesAt(t, "stop and cont", before)
		r.checkGrowth(t, "stop and cont", half, r.footprint())
	})
	t.Run("module", func(t *testing.T) {
		check(t, r.vm, unloadDriver)
		before := r.footprint()
		if before.resources != 0 || before.contexts != 0 || before.imports > 1 {
			t.Errorf("without a driver the broker holds %v", before)
		}
		var half footprint
		for i := range rounds {
			check(t, r.vm, loadDriver+"/lab/share/guestpaint fb")
			showsEventually(t, fmt.Sprintf("frame buffer after reload %d", i), r.shoot(t), painted(screenW, screenH), exact)
			check(t, r.vm, unloadDriver)
			r.settlesAt(t, "unloading", before)
			if i == rounds/2 {
				half = r.footprint()
			}
		}
		r.checkGrowth(t, "module reload", half, r.footprint())
	})
	r.noErrors(t)
}

// TestReboot: a machine is reset while it draws in 3D, and draws again.
func TestReboot(t *testing.T) {
	r := machine(t)
	var before, half footprint
	for i := range rounds {
		check(t, r.vm, startCube)
		r.turns(t, 5)
		qmp(t, r.vm, "system_reset", nil)
		if err := r.vm.WaitBoot(t.Context(), 2+i); err != nil {
			t.Fatal(err)
		}
		switch i {
		case 0:
			before = r.footprint() // the window is gone, the libraries are loaded
		case rounds / 2:
			half = r.footprint()
		default:
			r.settlesAt(t, "a reboot", before)
		}
	}
	r.checkGrowth(t, "reboot", half, r.footprint())
	check(t, r.vm, startCube)
	r.turns(t, 5)
	r.noErrors(t)
}

// unloadDriver takes the console off the screen and the driver out of the kernel.
const unloadDriver = `for c in /sys/class/vtconsole/vtcon*; do
	grep -q "frame buffer" $c/name && echo 0 >$c/bind
done
for i in $(seq 50); do rmmod virtio_gpu 2>/tmp/rmmod && break; sleep 0.1; done
[ ! -e /sys/module/virtio_gpu ] || { cat /tmp/rmmod; false; }
`

// everyEvent takes a machine that draws through each event once, and leaves it
// drawing.
func (r *rig) everyEvent(t *testing.T) {
	t.Helper()
	qmp(t, r.vm, "stop", nil)
	qmp(t, r.vm, "cont", nil)
	r.turns(t, 5)
	check(t, r.vm, lab.EndKmscube+unloadDriver+startCube)
	r.turns(t, 5)
	qmp(t, r.vm, "system_reset", nil)
	if err := r.vm.WaitBoot(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	check(t, r.vm, startCube)
	r.turns(t, 5)
}

// TestManyMachines: one broker process and one machine after the other on its
// socket. They end by quit or by a crash, and are of both versions of QEMU.
func TestManyMachines(t *testing.T) {
	t.Parallel()
	r := waylandRig(t, "--virgl=on")
	var before, half footprint
	for i := range rounds {
		crash := i%2 == 1
		cfg := lab.VMConfig{SMP: 1, Devices: r.gpu("vhost-user-gpu-pci")}
		switch i {
		case 3, 6:
			cfg.QEMU = lab.QEMU10
		case 7:
			cfg.Devices = r.gpu("vhost-user-vga")
		}
		r.vm = labtest.VM(t, cfg)
		check(t, r.vm, startCube)
		r.turns(t, 5)
		if i == 6 {
			r.everyEvent(t)
		}
		if crash {
			r.vm.Kill()
		} else {
			qmp(t, r.vm, "quit", nil)
			if err := r.vm.Wait(t.Context()); err != nil {
				t.Errorf("QEMU after quit: %v", err)
			}
		}
		eventually(t, 10*time.Second, "the broker sees that QEMU left", func() bool { return !r.status().Connected })
		if i == 0 {
			time.Sleep(3 * time.Second) // a disabled head's window closes
			before = r.footprint()
			if before.resources != 0 || before.contexts != 0 || before.imports != 0 {
				t.Errorf("without a machine the broker holds %v", before)
			}
			continue
		}
		r.settlesAt(t, "the end of a machine", before)
		if i == rounds/2 {
			half = r.footprint()
		}
	}
	r.checkGrowth(t, "machines", half, r.footprint())
	r.noErrors(t)
}
