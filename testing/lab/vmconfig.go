package lab

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"
)

// The versions of QEMU in the root.
const (
	QEMU11 = "11.1"
	QEMU10 = "10.0"
)

// The values of VMConfig.Accel.
const (
	AccelAuto = "" // KVM where [Root.KVMWorks], else TCG
	AccelKVM  = "kvm"
	AccelTCG  = "tcg"
)

// GenericGPU is QEMU 11.1's generic vhost-user device, as a GPU: what -device takes, but for
// the chardev. It passes blobs and the window of host memory on, which vhost-user-gpu-pci
// does not.
const GenericGPU = "vhost-user-test-device-pci,virtio-id=16,num_vqs=2,vq_size=256,config_size=16"

// VMConfig describes a guest. The zero value boots QEMU 11.1 with 2 CPUs, 2 GiB
// of shared memory and no display device.
type VMConfig struct {
	QEMU  string // QEMU11 (also if empty) or QEMU10
	Accel string // AccelAuto, AccelKVM or AccelTCG
	MemMB int    // guest memory in MiB, 2048 if 0
	SMP   int    // virtual CPUs, 2 if 0
	UEFI  bool   // boot through OVMF, which drives virtio-gpu itself, instead of SeaBIOS

	// Display is the value of QEMU's -display, "none" if empty.
	Display string
	// Devices are further QEMU arguments, such as a -chardev and a -device.
	Devices []string
	// KernelArgs is added to the kernel's command line.
	KernelArgs string
	// Env and Bind are for QEMU itself, see CommandOptions.
	Env, Bind []string

	// Share is the host folder that the guest sees, writable, as /lab/share; a
	// temporary one if empty.
	Share string
	// Console receives the guest's console and QEMU's messages as they come, and
	// Output the output of scripts, line by line. Either may be nil.
	Console, Output io.Writer
	// BootTimeout bounds the way to user space: 90 s if 0.
	BootTimeout time.Duration
}

func (c *VMConfig) setDefaults() error {
	if c.QEMU == "" {
		c.QEMU = QEMU11
	}
	if c.QEMU != QEMU11 && c.QEMU != QEMU10 {
		return fmt.Errorf("vm: QEMU %q: the lab has %q and %q", c.QEMU, QEMU11, QEMU10)
	}
	if c.Accel != AccelAuto && c.Accel != AccelKVM && c.Accel != AccelTCG {
		return fmt.Errorf("vm: accelerator %q: want %q, %q or nothing", c.Accel, AccelKVM, AccelTCG)
	}
	if c.MemMB == 0 {
		c.MemMB = 2048
	}
	if c.SMP == 0 {
		c.SMP = 2
	}
	if c.Display == "" {
		c.Display = "none"
	}
	if c.BootTimeout == 0 {
		c.BootTimeout = 90 * time.Second
	}
	return nil
}

// qemuCommand is the program and the folders of one of the two QEMUs.
func qemuCommand(version string) (argv, env []string) {
	if version == QEMU10 {
		return []string{
				"/opt/qemu-10/usr/bin/qemu-system-x86_64",
				"-L", "/opt/qemu-10/usr/share/qemu", "-L", "/usr/share/seabios",
			}, []string{
				"QEMU_MODULE_DIR=/opt/qemu-10/usr/lib/x86_64-linux-gnu/qemu",
			}
	}
	return []string{"qemu-system-x86_64"}, nil
}

// args returns QEMU's command line; files lie in dir.
func (c *VMConfig) args(r *Root, dir string) []string {
	argv, _ := qemuCommand(c.QEMU)
	accel, cpu := "tcg,thread=multi,tb-size=512", "max"
	if c.Accel == AccelKVM {
		accel, cpu = "kvm", "host"
	}
	// The guest trusts its clock and gives up what costs most under emulation.
	cmdline := []string{
		"console=ttyS0", "quiet", "loglevel=4", "mitigations=off", "nokaslr",
		"tsc=reliable", "no_timer_check", "audit=0", "apparmor=0", "random.trust_cpu=on",
		"cryptomgr.notests", "rcupdate.rcu_expedited=1",
	}
	if c.KernelArgs != "" {
		cmdline = append(cmdline, c.KernelArgs)
	}
	argv = append(argv,
		"-nodefaults", "-no-user-config",
		"-machine", "q35,memory-backend=mem",
		"-object", fmt.Sprintf("memory-backend-memfd,id=mem,size=%dM,share=on", c.MemMB),
		"-accel", accel, "-cpu", cpu, "-smp", fmt.Sprint(c.SMP),
		"-kernel", r.Inside("lab/vmlinuz"),
		"-initrd", filepath.Join(dir, "initrd"),
		"-append", strings.Join(cmdline, " "),
		"-display", c.Display,
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-qmp", "unix:"+filepath.Join(dir, "qmp")+",server=on,wait=off",
		"-virtfs", "local,path="+r.Path+",mount_tag=labroot,security_model=none,readonly=on,multidevs=remap",
		"-virtfs", "local,path="+c.Share+",mount_tag=labshare,security_model=none,multidevs=remap",
		"-device", "virtio-serial-pci",
		"-chardev", "socket,id=agent,path="+filepath.Join(dir, "agent")+",server=on,wait=off",
		"-device", "virtserialport,chardev=agent,name=lab.agent",
		"-device", "virtio-rng-pci",
	)
	if c.UEFI {
		argv = append(argv, "-bios", "/usr/share/ovmf/OVMF.fd")
	}
	return append(argv, c.Devices...)
}
