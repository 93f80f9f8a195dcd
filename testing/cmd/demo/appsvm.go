package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gpubroker/gpubroker/testing/clients"
	"github.com/gpubroker/gpubroker/testing/lab"
)

// hostVM is the machine that has dma-bufs, an emulated one.
const hostVM = "vm"

// Of a guest within a guest.
const (
	nestedTime   = 25 * time.Minute
	nestedFrames = 4
)

// nestedConfig is the guest's configuration where it is one within a guest.
func nestedConfig(ctx context.Context, root *lab.Root) lab.VMConfig {
	if !root.InGuest() {
		return lab.VMConfig{}
	}
	cfg, why := lab.InnerConfig(ctx, nestedTime)
	if why != "" {
		fmt.Printf("no KVM in the machine, the guest in it takes ten times as long: %s\n", why)
	}
	return cfg
}

// nestedDesktop is a compositor that shows dma-bufs.
func nestedDesktop(ctx context.Context, root *lab.Root) (*compositor, error) {
	w, err := root.Weston(ctx, lab.WestonOptions{Renderer: "gl", Shell: "desktop", W: width, H: height})
	if err != nil {
		return nil, err
	}
	return &compositor{
		name: "headless weston with OpenGL", socket: w.Socket(), env: w.Env(), bind: []string{w.RuntimeDir},
		shoot: w.Screenshot, stop: w.Stop,
	}, nil
}

// demoAppsVM runs the demo inside the machine.
func demoAppsVM(ctx context.Context, o appsOptions) error {
	if o.host != hostVM {
		return fmt.Errorf("-host=%s: want %s or nothing", o.host, hostVM)
	}
	root, err := lab.Find()
	if err != nil {
		return err
	}
	fmt.Println("building gpubroker, gpubroker-guest and this program")
	bin := filepath.Join("out", "bin")
	programs, err := clients.BuildPrograms(ctx, bin)
	if err != nil {
		return err
	}
	self := filepath.Join(bin, "demo")
	if err := lab.Build(ctx, "github.com/gpubroker/gpubroker/testing/cmd/demo", self); err != nil {
		return err
	}
	fmt.Println("booting a machine that has dma-bufs; the demo runs in it")
	vm, err := root.StartHostVM(ctx, lab.VMConfig{Output: os.Stdout})
	if err != nil {
		return err
	}
	defer vm.Close()
	for _, file := range []string{programs.Broker, programs.Guest} {
		if _, err := vm.PutFile(file); err != nil {
			return err
		}
	}
	_, code, err := vm.RunBinary(ctx, self, nil, "-mode=apps", "-transport", o.transport, "-programs", "/lab/share")
	if err == nil && code != 0 {
		err = fmt.Errorf("in the machine: code %d", code)
	}
	to := filepath.Join("out", "demo-apps-vm")
	from := filepath.Join(vm.Share, "out", "demo-apps")
	if rerr := os.RemoveAll(to); rerr != nil {
		return errors.Join(err, rerr)
	}
	if cerr := os.CopyFS(to, os.DirFS(from)); cerr != nil {
		return errors.Join(err, cerr)
	}
	fmt.Println("the results are in", to)
	return err
}
