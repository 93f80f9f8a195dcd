package lab

import (
	"context"
	"fmt"
	"os/exec"
	"time"
)

// To leave and enter a guest's guest costs an emulated SVM a millisecond or two, because
// it empties the translated TLB each time; four times for each of 250 ticks a second is
// all the time that there is. So its tick comes 25 times a second and needs no exit to be set
// up anew: KVM stretches a periodic timer, and the guest's clock is KVM's.
const (
	innerArgs = "nohz=off highres=off lapic=notscdeadline vt.global_cursor_default=0"
	tickTime  = "min_timer_period_us=40000"
)

// InnerConfig describes a guest of a guest, for a program that runs in one (see
// [Root.InGuest]): on KVM where the emulated processor has SVM, because the inner guest's
// instructions are then translated once and not twice. why is empty, or says why it is not
// KVM; all then takes ten times as long.
func InnerConfig(ctx context.Context, boot time.Duration) (cfg VMConfig, why string) {
	cfg = VMConfig{Accel: AccelKVM, MemMB: 1024, SMP: 1, BootTimeout: boot, KernelArgs: innerArgs}
	out, err := exec.CommandContext(ctx, "sh", "-c", "modprobe kvm halt_poll_ns=0 "+tickTime+" && modprobe kvm_amd && ls /dev/kvm").CombinedOutput()
	if err != nil {
		cfg.Accel = AccelTCG
		why = fmt.Sprintf("%v: %s", err, out)
	}
	return cfg, why
}
