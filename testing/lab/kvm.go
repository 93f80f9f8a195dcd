package lab

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// kvmProbeTime is generous: where KVM works, a guest is up in two seconds.
const kvmProbeTime = 12 * time.Second

// KVMWorks reports whether a Linux guest really reaches user space under KVM
// here: /dev/kvm may exist and hang a guest. The answer of the probe boot is kept
// in the lab's folder for this pair of kernels.
func (r *Root) KVMWorks(ctx context.Context) bool {
	dev, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	dev.Close()

	answer := filepath.Join(r.Dir, "kvm-"+hostKernel()+"-"+r.Kernel)
	if body, err := os.ReadFile(answer); err == nil {
		return strings.HasPrefix(string(body), "yes")
	}
	err = r.probeKVM(ctx)
	if ctx.Err() != nil {
		return false // says nothing about KVM
	}
	text := "yes\n"
	if err != nil {
		text = "no\n" + err.Error() + "\n"
	}
	// Only a cache: without it the next call probes again.
	_ = os.WriteFile(answer, []byte(text), 0o600)
	return err == nil
}

func (r *Root) probeKVM(ctx context.Context) error {
	vm, err := r.StartVM(ctx, VMConfig{Accel: AccelKVM, MemMB: 512, BootTimeout: kvmProbeTime})
	if err != nil {
		return err
	}
	defer vm.Close()
	return vm.WaitBoot(ctx, 1)
}

func hostKernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
