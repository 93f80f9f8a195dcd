package smoke

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
)

// qemuDevices are the devices that gpubroker can be, as -device help prints them.
const (
	deviceClassic = "vhost-user-gpu-pci"
	deviceVGA     = "vhost-user-vga"
	deviceFull    = "vhost-user-test-device-pci"
)

// qemuName is the system emulator of this machine's architecture.
func qemuName() string {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	return "qemu-system-" + arch
}

const packageQEMU = "sudo apt install qemu-system (QEMU 11.1 for blobs: Debian 13 with backports)"

// probeQEMU asks QEMU for its version and devices, which say how guests can use
// gpubroker.
func probeQEMU(ctx context.Context, p *probe) {
	name := p.QEMU
	if name == "" {
		name = qemuName()
	}
	p.begin("qemu", name)
	path, err := exec.LookPath(name)
	if err != nil {
		p.end(Row{State: Failed, Needed: true, Seen: "no QEMU", Cause: err.Error(), Fix: packageQEMU + ", or --qemu FILE"})
		return
	}
	text, err := exec.CommandContext(ctx, path, "--version").CombinedOutput()
	major, minor, version := qemuVersion(string(text))
	if err != nil || version == "" {
		p.end(Row{State: Failed, Needed: true, Seen: "it does not say its version", Cause: fmt.Sprintf("%v: %s", err, text), Fix: packageQEMU})
		return
	}
	// The machine does not matter for the list, but some need one to be named.
	devices, err := exec.CommandContext(ctx, path, "-machine", "none", "-device", "help").CombinedOutput()
	if err != nil {
		p.end(Row{State: Failed, Needed: true, Seen: version + " does not list its devices", Cause: fmt.Sprintf("%v: %s", err, devices), Fix: packageQEMU})
		return
	}
	p.end(judgeQEMU(major, minor, version, string(devices), p.KVM))
}

var versionText = regexp.MustCompile(`version (\d+)\.(\d+)[\d.]*`)

func qemuVersion(text string) (major, minor int, version string) {
	m := versionText.FindStringSubmatch(text)
	if m == nil {
		return 0, 0, ""
	}
	major, _ = strconv.Atoi(m[1]) // digits, by the expression
	minor, _ = strconv.Atoi(m[2])
	return major, minor, strings.TrimPrefix(m[0], "version ")
}

// judgeQEMU says what a QEMU allows (README, "Ways for a guest to reach it").
func judgeQEMU(major, minor int, version, devices string, kvm bool) Row {
	has := func(device string) bool { return strings.Contains(devices, `"`+device+`"`) }
	emulates := major >= 10
	full := has(deviceFull) && (major > 11 || major == 11 && minor >= 1)
	classic := has(deviceClassic) || has(deviceVGA)
	var modes []string
	if full {
		modes = append(modes, "blobs and all, by "+deviceFull)
	}
	for _, d := range []string{deviceClassic, deviceVGA} {
		if has(d) {
			modes = append(modes, d)
		}
	}
	r := Row{State: OK, Seen: version + ": " + strings.Join(modes, ", ")}
	switch {
	case !full && !classic:
		r.State, r.Needed, r.Seen = Failed, true, version+" has no vhost-user GPU device"
		r.Cause = "this build lacks " + deviceClassic
		r.Fix = "sudo apt install qemu-system-gui qemu-system-modules-opengl, or another QEMU"
	case !kvm && !emulates:
		r.State, r.Needed, r.Seen = Failed, true, version+": no guest can use gpubroker"
		r.Cause = "QEMU before 10 connects to vhost-user devices only with KVM, which does not work here (see kvm)"
		r.Fix = "QEMU 10 or later, or make KVM work"
	case !full:
		r.State, r.Cause = Degraded, "no blob resources and no window of host memory: these need QEMU 11.1"
		r.Fix = packageQEMU
	}
	if !kvm && r.State != Failed {
		r.Seen += "; guests are emulated"
	}
	return r
}
