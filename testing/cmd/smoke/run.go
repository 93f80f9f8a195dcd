package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/gpubroker/gpubroker/broker/smoke"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/report"
)

// workTime bounds one host.
const workTime = 10 * time.Minute

// resultFile is what a worker leaves in its folder.
const resultFile = "smoke.json"

// reportJSON is out/smoke/report.json.
type reportJSON struct {
	Hosts    map[string]*smoke.Report `json:"hosts"`
	GL       bool                     `json:"gl"` // gpubroker was built with OpenGL
	Problems []string                 `json:"problems"`
	Seconds  float64                  `json:"seconds"`
}

func run(ctx context.Context, hosts string) error {
	start := time.Now()
	out, err := report.NewDir("smoke")
	if err != nil {
		return err
	}
	root, err := lab.Find()
	if err != nil {
		return err
	}
	bin, err := os.MkdirTemp("", "gpubroker-smoke-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(bin) }()
	rep := &reportJSON{Hosts: map[string]*smoke.Report{}}
	fmt.Println("building gpubroker")
	if rep.GL, err = build(ctx, bin); err != nil {
		return err
	}
	for _, host := range strings.Split(hosts, ",") {
		res, err := runHost(ctx, root, bin, host)
		if err != nil {
			return fmt.Errorf("host %s: %w", host, err)
		}
		rep.Hosts[host] = res
		rep.Problems = append(rep.Problems, check(host, res, rep.GL)...)
		if err := write(out, host, res); err != nil {
			return err
		}
		fmt.Printf("\n%s:\n\n", host)
		if err := res.Print(os.Stdout, false); err != nil {
			return err
		}
	}
	rep.Seconds = time.Since(start).Seconds()
	if err := out.JSON(rep); err != nil {
		return err
	}
	fmt.Printf("\nwrote %s/report.json and the tables beside it, %.1f s\n", out.Path, rep.Seconds)
	if len(rep.Problems) > 0 {
		return errors.New("not as expected:\n  " + strings.Join(rep.Problems, "\n  "))
	}
	return nil
}

// build makes gpubroker, with OpenGL if this machine can build that, and this command.
func build(ctx context.Context, dir string) (gl bool, err error) {
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", "egl", "-o", filepath.Join(dir, "gpubroker"), "github.com/gpubroker/gpubroker/cmd/gpubroker")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if text, err := cmd.CombinedOutput(); err == nil {
		gl = true
	} else {
		fmt.Printf("no OpenGL in this build: %v: %s\n", err, text)
		if err := lab.Build(ctx, "github.com/gpubroker/gpubroker/cmd/gpubroker", filepath.Join(dir, "gpubroker")); err != nil {
			return false, err
		}
	}
	return gl, lab.Build(ctx, "github.com/gpubroker/gpubroker/testing/cmd/smoke", filepath.Join(dir, "smoke"))
}

func runHost(ctx context.Context, root *lab.Root, bin, host string) (*smoke.Report, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, workTime, fmt.Errorf("not done within %v", workTime))
	defer cancel()
	switch host {
	case "plain":
		dir, err := os.MkdirTemp("", "smoke-plain-")
		if err != nil {
			return nil, err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		if err := work(ctx, filepath.Join(bin, "gpubroker"), dir); err != nil {
			return nil, err
		}
		return read(filepath.Join(dir, resultFile))
	case "vm":
		return runVM(ctx, root, bin)
	}
	return nil, errors.New("unknown host: want plain or vm")
}

// runVM boots the machine that has dma-bufs and runs a worker in it.
func runVM(ctx context.Context, root *lab.Root, bin string) (*smoke.Report, error) {
	fmt.Println("\nbooting a virtual machine that has dma-bufs")
	vm, err := root.StartHostVM(ctx, lab.VMConfig{Output: os.Stdout})
	if err != nil {
		return nil, err
	}
	defer vm.Close()
	for _, name := range []string{"gpubroker", "smoke"} {
		if _, err := vm.PutFile(filepath.Join(bin, name)); err != nil {
			return nil, err
		}
	}
	_, code, err := vm.Run(ctx, `set -e
modprobe vhost_vsock || true
mkdir -p /tmp/smoke
cp /lab/share/gpubroker /lab/share/smoke /tmp/smoke/
cd /tmp/smoke
exec ./smoke -worker /tmp/smoke/gpubroker -dir /lab/share
`)
	if err == nil && code != 0 {
		err = fmt.Errorf("the worker in the virtual machine ended with code %d", code)
	}
	if err != nil {
		return nil, err
	}
	return read(filepath.Join(vm.Share, resultFile))
}

// work runs gpubroker smoke where it is, beside a compositor.
func work(ctx context.Context, gpubroker, dir string) error {
	root, err := lab.Find()
	if err != nil {
		return err
	}
	args := []string{"smoke", "--json", "--timeout", "3m"}
	opt := lab.WestonOptions{Renderer: "pixman"}
	if root.InGuest() {
		opt.Renderer = "gl"
	} else {
		qemu, err := wrapQEMU(ctx, root, dir)
		if err != nil {
			return err
		}
		args = append(args, "--qemu", qemu)
	}
	weston, err := root.Weston(ctx, opt)
	if err != nil {
		return err
	}
	defer weston.Stop()
	cmd := exec.CommandContext(ctx, gpubroker, append(args, "--wayland-display", weston.Socket())...)
	cmd.Stderr = os.Stderr
	cmd.Env = os.Environ()
	if root.InGuest() {
		// Its only DRM device draws nothing, and Mesa would look for a driver for it.
		cmd.Env = append(cmd.Env, "LIBGL_ALWAYS_SOFTWARE=1")
	}
	body, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	if !json.Valid(body) {
		return fmt.Errorf("gpubroker smoke: %w: no JSON: %.200q", err, body)
	}
	return os.WriteFile(filepath.Join(dir, resultFile), body, 0o644)
}

// wrapQEMU makes a script that runs the lab's QEMU in the lab's sandbox, since this
// machine need not have one of its own.
func wrapQEMU(ctx context.Context, root *lab.Root, dir string) (string, error) {
	var script strings.Builder
	script.WriteString("#!/bin/sh\nexec")
	for _, arg := range root.Command(ctx, lab.CommandOptions{Dir: "/tmp"}, "qemu-system-x86_64").Args {
		script.WriteString(" '" + strings.ReplaceAll(arg, "'", `'\''`) + "'")
	}
	script.WriteString(" \"$@\"\n")
	path := filepath.Join(dir, "qemu")
	return path, os.WriteFile(path, []byte(script.String()), 0o755)
}

func read(path string) (*smoke.Report, error) {
	body, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	rep := &smoke.Report{}
	return rep, json.Unmarshal(body, rep)
}

// write writes a host's table, with all parts, and its JSON.
func write(out report.Dir, host string, rep *smoke.Report) error {
	body, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out.Path, host+".json"), append(body, '\n'), 0o644); err != nil {
		return err
	}
	f, err := out.Create(host + ".txt")
	if err != nil {
		return err
	}
	if err := rep.Print(f, true); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
