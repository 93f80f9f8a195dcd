package smoke

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
	"github.com/gpubroker/gpubroker/shmfallback/kvmslot"
	"github.com/gpubroker/gpubroker/shmfallback/kvmslot/realmode"
)

// Where the guest has its code and the buffer that it fills: a segment of its own.
const (
	guestCode   = 0x1000
	guestBuffer = 0x10000
	guestSide   = 128 // pixels; 64 KiB in all
)

// guestProgram fills a segment with words that count up, and halts.
var guestProgram = []byte{
	0xb8, guestBuffer >> 4 & 0xff, guestBuffer >> 12, // mov ax, segment
	0x8e, 0xc0, // mov es, ax
	0x31, 0xff, // xor di, di
	0x31, 0xc0, // xor ax, ax
	0xb9, 0x00, 0x80, // mov cx, 0x8000
	0xfc,       // cld
	0xab,       // next: stosw
	0x40,       // inc ax
	0xe2, 0xfc, // loop next
	0xf4, // hlt
}

// probeKVM runs a guest that writes into a buffer which a compositor could show.
func probeKVM(_ context.Context, p *probe) {
	p.begin("kvm", "")
	if _, err := os.Stat("/dev/kvm"); err != nil {
		p.end(Row{State: Degraded, Seen: "guests are emulated, which is slow and needs QEMU 10", Cause: err.Error(),
			Fix: "switch on virtualisation in the firmware (or nested virtualisation of this VM), then sudo modprobe kvm_intel or kvm_amd"})
		return
	}
	err := runGuest()
	switch {
	case err == nil:
		p.found(findings{KVM: true})
		p.end(Row{State: OK, Seen: fmt.Sprintf("a real-mode guest ran and wrote %d KiB into a shared buffer, every word as it should be", guestSide*guestSide*4>>10)})
	case errors.Is(err, unix.EACCES):
		p.end(Row{State: Degraded, Seen: "no permission: guests are emulated", Cause: permission("/dev/kvm"),
			Fix: "sudo usermod -aG kvm " + userName() + ", then log in again"})
	case errors.Is(err, realmode.ErrNotSupported):
		p.end(Row{State: Skipped, Seen: "not tried", Cause: err.Error()})
	default:
		p.end(Row{State: Failed, Seen: "/dev/kvm exists, but a guest does not run", Cause: err.Error(),
			Fix: "see the kernel's log (dmesg); QEMU 10 and later also emulate (-accel tcg)"})
	}
}

func runGuest() error {
	vm, err := realmode.New(guestCode)
	if err != nil {
		return err
	}
	defer vm.Close()
	slots, err := kvmslot.New(vm.FD(), kvmslot.Config{})
	if err != nil {
		return err
	}
	defer func() { _ = slots.Close() }()
	code, err := shmfallback.Alloc(32, 32, dmabuf.XRGB8888, "guest code")
	if err != nil {
		return err
	}
	defer code.Release()
	copy(code.Mem, guestProgram)
	buf, err := shmfallback.Alloc(guestSide, guestSide, dmabuf.XRGB8888, "guest buffer")
	if err != nil {
		return err
	}
	defer buf.Release()
	if _, err := slots.Map(code, guestCode, true); err != nil {
		return err
	}
	if _, err := slots.Map(buf, guestBuffer, true); err != nil {
		return err
	}
	if err := vm.Run(); err != nil {
		return err
	}
	for i := range guestSide * guestSide * 2 {
		if got := uint16(buf.Mem[2*i]) | uint16(buf.Mem[2*i+1])<<8; got != uint16(i) {
			return fmt.Errorf("word %d of the guest's memory is %#x", i, got)
		}
	}
	return nil
}
