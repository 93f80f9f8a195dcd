package lab_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// check runs a script that must end with code 0.
func check(t *testing.T, vm *lab.VM, script string) string {
	t.Helper()
	out, err := vm.Check(t.Context(), script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestGuest(t *testing.T) {
	start := time.Now()
	vm := labtest.VM(t, lab.VMConfig{Devices: []string{"-device", "virtio-gpu-pci"}})
	if err := vm.WaitBoot(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	t.Logf("user space after %v under %s", time.Since(start).Round(time.Millisecond), vm.Config.Accel)

	t.Run("kernel", func(t *testing.T) {
		if out := check(t, vm, "uname -r"); out != labtest.Root(t).Kernel+"\n" {
			t.Errorf("uname -r says %q, the root has %q", out, labtest.Root(t).Kernel)
		}
	})
	t.Run("virtio-gpu", func(t *testing.T) {
		out := check(t, vm, "modprobe virtio_gpu && ls /dev/dri")
		if !strings.Contains(out, "card0") {
			t.Errorf("/dev/dri holds %q", out)
		}
	})
	t.Run("output and code", func(t *testing.T) {
		out, code, err := vm.Run(t.Context(), "echo one; echo two >&2; printf three; exit 42")
		if err != nil || code != 42 || out != "one\ntwo\nthree" {
			t.Errorf("got %q, %d, %v", out, code, err)
		}
		_, err = vm.Check(t.Context(), "echo because; false")
		if !errors.Is(err, lab.ErrExitCode) || !strings.Contains(err.Error(), "because") {
			t.Errorf("Check of a failing script: %v", err)
		}
	})
	t.Run("much output", func(t *testing.T) {
		if out := check(t, vm, "seq 1 50000"); strings.Count(out, "\n") != 50000 || !strings.HasSuffix(out, "\n50000\n") {
			t.Errorf("%d bytes, end %q", len(out), out[max(0, len(out)-20):])
		}
	})
	t.Run("share", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(vm.Share, "in"), []byte("from the host"), 0o600); err != nil {
			t.Fatal(err)
		}
		check(t, vm, "tr a-z A-Z </lab/share/in >/lab/share/out")
		got, err := os.ReadFile(filepath.Join(vm.Share, "out"))
		if err != nil || string(got) != "FROM THE HOST" {
			t.Errorf("the guest wrote %q, %v", got, err)
		}
	})
	t.Run("the tree stays as it is", func(t *testing.T) {
		check(t, vm, "echo x >/usr/lab-test && rm /usr/bin/weston")
		root := labtest.Root(t)
		if _, err := os.Stat(root.Inside("usr/lab-test")); err == nil {
			t.Error("the guest wrote into the lab root")
		}
		if _, err := os.Stat(root.Inside("usr/bin/weston")); err != nil {
			t.Error(err)
		}
	})
	t.Run("stop and cont", func(t *testing.T) {
		for _, command := range []string{"stop", "cont"} {
			if _, err := vm.QMP(t.Context(), command, nil); err != nil {
				t.Fatal(err)
			}
		}
		check(t, vm, "true")
		var refused *lab.QMPError
		if _, err := vm.QMP(t.Context(), "no-such-command", nil); !errors.As(err, &refused) {
			t.Errorf("unknown command: %v", err)
		}
	})
	t.Run("reset", func(t *testing.T) {
		check(t, vm, "touch /run/before")
		if _, err := vm.QMP(t.Context(), "system_reset", nil); err != nil {
			t.Fatal(err)
		}
		if err := vm.WaitBoot(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		check(t, vm, "[ ! -e /run/before ]")
	})
	t.Run("reboot during a script", func(t *testing.T) {
		_, _, err := vm.Run(t.Context(), "busybox reboot -f; sleep 60")
		if !errors.Is(err, lab.ErrRebooted) {
			t.Errorf("got %v, want %v", err, lab.ErrRebooted)
		}
		check(t, vm, "true")
	})
	t.Run("quit", func(t *testing.T) {
		if _, err := vm.QMP(t.Context(), "quit", nil); err != nil {
			t.Fatal(err)
		}
		if err := vm.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		if _, _, err := vm.Run(t.Context(), "true"); err == nil {
			t.Error("a script ran after QEMU ended")
		}
	})
}

func TestBothQEMUs(t *testing.T) {
	root := labtest.Root(t)
	for version, binary := range map[string]string{
		lab.QEMU11: "qemu-system-x86_64",
		lab.QEMU10: "/opt/qemu-10/usr/bin/qemu-system-x86_64",
	} {
		t.Run(version, func(t *testing.T) {
			out, err := root.Command(t.Context(), lab.CommandOptions{}, binary, "--version").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "version "+version+".") {
				t.Errorf("--version: %s %v", out, err)
			}
			x := labtest.Xvfb(t, 800, 600)
			vm := labtest.VM(t, lab.VMConfig{
				QEMU: version, Accel: lab.AccelTCG, MemMB: 256,
				Display: "gtk", Env: x.Env(),
				Devices: []string{"-device", "virtio-vga"},
			})
			out, err = vm.QMP(t.Context(), "qom-list-types", map[string]any{"implements": "device"})
			if err != nil {
				t.Fatal(err)
			}
			for _, device := range []string{"vhost-user-gpu-pci", "vhost-user-vga", "virtio-gpu-gl-pci"} {
				if !strings.Contains(string(out), fmt.Sprintf("%q", device)) {
					t.Errorf("QEMU %s has no %s", version, device)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			for {
				img, err := x.Screenshot()
				if err != nil {
					t.Fatal(err)
				}
				if colours(img) > 8 { // a window with a menu bar
					return
				}
				select {
				case <-ctx.Done():
					t.Fatal("QEMU's gtk window did not appear")
				case <-time.After(100 * time.Millisecond):
				}
			}
		})
	}
}

func TestUEFIGuestOnOlderQEMU(t *testing.T) {
	vm := labtest.VM(t, lab.VMConfig{QEMU: lab.QEMU10, UEFI: true, Devices: []string{"-device", "virtio-gpu-pci"}})
	check(t, vm, "[ -d /sys/firmware/efi ] && modprobe virtio_gpu && [ -e /dev/dri/card0 ]")
}

func TestVMFailureSaysWhy(t *testing.T) {
	root := labtest.Root(t)
	_, err := root.StartVM(t.Context(), lab.VMConfig{Accel: lab.AccelTCG, Devices: []string{"-device", "no-such-device"}})
	if !errors.Is(err, lab.ErrExited) || !strings.Contains(err.Error(), "'no-such-device' is not a valid device model name") ||
		!strings.Contains(err.Error(), "-machine q35") {
		t.Errorf("error does not carry the command and QEMU's message: %v", err)
	}
	if _, err := root.StartVM(t.Context(), lab.VMConfig{QEMU: "9"}); err == nil {
		t.Error("QEMU 9 was accepted")
	}
}

// runInner runs a test of testdata/inner in a guest that plays the host.
func runInner(t *testing.T, name string, env ...string) {
	t.Helper()
	vm := labtest.HostVM(t, lab.VMConfig{Output: t.Output()})
	binary := filepath.Join(t.TempDir(), "inner.test")
	if err := lab.BuildTest(t.Context(), "./testdata/inner", binary); err != nil {
		t.Fatal(err)
	}
	env = append(env, labtest.Env+"=1")
	out, code, err := vm.RunBinary(t.Context(), binary, env, "-test.v", "-test.timeout=25m", "-test.run=^"+name+"$")
	if err != nil {
		t.Fatal(err)
	}
	if code != 0 || !strings.Contains(out, "--- PASS: "+name) {
		t.Errorf("the inner test ended with code %d", code)
	}
}

func TestHostVM(t *testing.T) { runInner(t, "TestWestonOffersDMABuf") }

func TestNestedGuest(t *testing.T) {
	labtest.Full(t)
	runInner(t, "TestNestedGuest", labtest.EnvFull+"=1")
}
