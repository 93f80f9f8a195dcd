package main

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
)

// appsOptions are those of windows of the guest's programs.
type appsOptions struct {
	on                    bool
	display, policy, name string
	importSocket          string
}

func (o *appsOptions) register(f *pflag.FlagSet) {
	f.BoolVar(&o.on, "apps", false, "let the guest's programs have windows of their own")
	f.StringVar(&o.display, "apps-display", "", "compositor for --apps, a `NAME` or path (default: that of --wayland-display)")
	f.StringVar(&o.policy, "policy", "", "what the guest's programs may see and do, TOML or JSON, from `FILE`")
	f.StringVar(&o.name, "vm-name", "", "`NAME` of the VM before the titles of its programs' windows, and for the compositor")
	f.StringVar(&o.importSocket, "import-socket", "", "be the import device of --apps on the unix socket `PATH`")
}

// maxVMName limits --vm-name, in bytes.
const maxVMName = 64

// config is nil without --apps. display is that of the guest's screen.
func (o *appsOptions) config(display string) (*broker.AppsConfig, error) {
	if !o.on {
		for _, f := range []struct{ name, value string }{
			{"--apps-display", o.display}, {"--policy", o.policy}, {"--vm-name", o.name}, {"--import-socket", o.importSocket},
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
	c := &broker.AppsConfig{Display: o.display, VMName: o.name, ImportSocket: o.importSocket}
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
