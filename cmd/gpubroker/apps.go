package main

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/apps"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
)

// appsOptions are those of windows of the guest's programs.
type appsOptions struct {
	on                    bool
	display, policy, name string
	importSocket          string
	socket, vsock, serial string
}

func (o *appsOptions) register(f *pflag.FlagSet) {
	f.BoolVar(&o.on, "apps", false, "let the guest's programs have windows of their own")
	f.StringVar(&o.display, "apps-display", "", "compositor for --apps, a `NAME` or path (default: that of --wayland-display)")
	f.StringVar(&o.policy, "policy", "", "what the guest's programs may see and do, TOML or JSON, from `FILE`")
	f.StringVar(&o.name, "vm-name", "", "`NAME` of the VM before the titles of its programs' windows, and for the compositor")
	f.StringVar(&o.socket, "apps-socket", "", "take clients of --apps on the unix socket `PATH`, for containers on this machine")
	f.StringVar(&o.vsock, "vsock", "", "take clients of --apps by vsock: PORT or CID:PORT of this kernel, or unix:PATH[:PORT] of the VMM (`WHERE`)")
	f.StringVar(&o.serial, "serial", "", "take clients of --apps by a virtio-serial port, whose QEMU chardev connects to the unix socket `PATH`")
	f.StringVar(&o.importSocket, "import-socket", "", "be the import device of --apps on the unix socket `PATH`")
}

// maxVMName limits --vm-name, in bytes.
const maxVMName = 64

// config is nil without --apps. display is that of the guest's screen.
func (o *appsOptions) config(display string) (*broker.AppsConfig, error) {
	if !o.on {
		for _, f := range []struct{ name, value string }{
			{"--apps-display", o.display}, {"--policy", o.policy}, {"--vm-name", o.name}, {"--import-socket", o.importSocket},
			{"--apps-socket", o.socket}, {"--vsock", o.vsock}, {"--serial", o.serial},
		} {
			if f.value != "" {
				return nil, usageError{fmt.Errorf("%s needs --apps", f.name)}
			}
		}
		return nil, nil
	}
	if len(o.name) > maxVMName || !utf8.ValidString(o.name) || strings.ContainsFunc(o.name, func(r rune) bool { return r < ' ' }) {
		return nil, usageError{fmt.Errorf("--vm-name %.80q: want at most %d bytes of text", o.name, maxVMName)}
	}
	c := &broker.AppsConfig{Display: o.display, VMName: o.name, ImportSocket: o.importSocket, Socket: o.socket, VSock: o.vsock, Serial: o.serial}
	if o.vsock != "" {
		if _, err := apps.ParseVSock(o.vsock); err != nil {
			return nil, usageError{fmt.Errorf("--%w", err)}
		}
	}
	if c.Display == "" {
		c.Display = display
	}
	if o.policy != "" {
		var err error
		if c.Policy, err = proxy.LoadPolicy(o.policy); err != nil {
			return nil, err
		}
	}
	return c, nil
}
