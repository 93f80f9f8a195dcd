package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// VM is a running guest. Its methods may be called from any goroutine, but
// scripts run one after the other.
type VM struct {
	Config VMConfig // with defaults filled in
	Share  string   // the host's side of the guest's /lab/share

	dir     string
	proc    *process
	qmp     *qmp
	agent   *agent
	scripts atomic.Int32
}

// ErrExitCode is wrapped by Check's error when the script failed.
var ErrExitCode = errors.New("script failed in the guest")

// StartVM starts a guest and returns when QEMU answers; the guest boots on. The
// caller ends it with Close.
func (r *Root) StartVM(ctx context.Context, cfg VMConfig) (*VM, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	if cfg.Accel == AccelAuto {
		cfg.Accel = AccelTCG
		if r.KVMWorks(ctx) {
			cfg.Accel = AccelKVM
		}
	}
	dir, err := os.MkdirTemp("", "lab-vm-")
	if err != nil {
		return nil, fmt.Errorf("vm: %w", err)
	}
	vm := &VM{dir: dir}
	if err := vm.start(ctx, r, cfg); err != nil {
		vm.Close()
		return nil, fmt.Errorf("vm: %w", err)
	}
	return vm, nil
}

func (vm *VM) start(ctx context.Context, r *Root, cfg VMConfig) error {
	if cfg.Share == "" {
		cfg.Share = filepath.Join(vm.dir, "share")
	}
	vm.Config, vm.Share = cfg, cfg.Share
	if err := os.MkdirAll(cfg.Share, 0o700); err != nil {
		return err
	}
	if err := r.initrd(filepath.Join(vm.dir, "initrd")); err != nil {
		return err
	}
	_, env := qemuCommand(cfg.QEMU)
	opt := CommandOptions{
		Env:  append(env, cfg.Env...),
		Bind: append([]string{vm.dir, cfg.Share}, cfg.Bind...),
	}
	proc, err := r.startProcess(opt, cfg.Console, cfg.args(r, vm.dir)...)
	if err != nil {
		return err
	}
	vm.proc = proc

	ctx, cancel := context.WithTimeout(ctx, cfg.BootTimeout)
	defer cancel()
	conn, err := vm.dial(ctx, "agent")
	if err != nil {
		return err
	}
	vm.agent = newAgent(conn, cfg.Output)
	if conn, err = vm.dial(ctx, "qmp"); err != nil {
		return err
	}
	if vm.qmp, err = newQMP(ctx, conn); err != nil {
		// QEMU opens its sockets before it looks at its devices.
		select {
		case <-proc.done:
			return proc.alive()
		case <-time.After(time.Second):
			return proc.failure("", err)
		}
	}
	return nil
}

// dial connects to one of QEMU's sockets, waiting for it to appear.
func (vm *VM) dial(ctx context.Context, name string) (net.Conn, error) {
	var conn net.Conn
	err := vm.proc.waitFor(ctx, "open socket "+name, func() bool {
		var err error
		conn, err = net.Dial("unix", filepath.Join(vm.dir, name))
		return err == nil
	})
	return conn, err
}

// WaitBoot waits until the guest has reached user space at least n times since
// QEMU started: 1 is the first boot, 2 the first reboot.
func (vm *VM) WaitBoot(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, vm.Config.BootTimeout,
		fmt.Errorf("no user space within %v: %w", vm.Config.BootTimeout, context.DeadlineExceeded))
	defer cancel()
	for {
		boots, next := vm.agent.booted()
		if boots >= n {
			return nil
		}
		select {
		case <-next:
		case <-vm.proc.done:
			return vm.proc.alive()
		case <-ctx.Done():
			return vm.proc.failure(fmt.Sprintf("boot %d", n), context.Cause(ctx))
		}
	}
}

// Boots returns how often the guest has reached user space.
func (vm *VM) Boots() int {
	n, _ := vm.agent.booted()
	return n
}

// Run runs a shell script as root in the guest, once it is up, and returns its
// output (both streams in order) and exit code. Programs that the script leaves
// in the background go on running. A context that ends makes Run return while
// the script runs on in the guest; the next one waits for its end there.
func (vm *VM) Run(ctx context.Context, script string) (string, int, error) {
	if err := vm.WaitBoot(ctx, 1); err != nil {
		return "", 0, err
	}
	name := fmt.Sprintf("script-%d.sh", vm.scripts.Add(1))
	path := filepath.Join(vm.Share, name)
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		return "", 0, fmt.Errorf("vm run: %w", err)
	}
	defer os.Remove(path)
	run, err := vm.agent.start(name)
	if err != nil {
		return "", 0, fmt.Errorf("vm run: %w", err)
	}
	out, code, err := vm.agent.wait(ctx, run)
	if err != nil {
		return out, code, vm.proc.failure("run", err)
	}
	return out, code, nil
}

// Check is Run for scripts that must end with code 0.
func (vm *VM) Check(ctx context.Context, script string) (string, error) {
	out, code, err := vm.Run(ctx, script)
	if err == nil && code != 0 {
		err = fmt.Errorf("%w with code %d\n  script:\n%s\n  output:\n%s", ErrExitCode, code, script, out)
	}
	return out, err
}

// QMP sends a command of QEMU's machine protocol: "stop", "cont",
// "system_reset", "quit", "screendump" and so on. args is marshalled to the
// arguments object; nil for none.
func (vm *VM) QMP(ctx context.Context, command string, args any) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, err := vm.qmp.run(ctx, command, args)
	if err != nil {
		return nil, vm.proc.failure("", err)
	}
	return out, nil
}

// Wait waits for QEMU to end by itself: after "quit", a guest's poweroff or a
// crash. The error is the exit status, nil for 0.
func (vm *VM) Wait(ctx context.Context) error {
	select {
	case <-vm.proc.done:
		if vm.proc.err != nil {
			return vm.proc.failure("", vm.proc.err)
		}
		return nil
	case <-ctx.Done():
		return vm.proc.failure("wait", context.Cause(ctx))
	}
}

// Exited is closed when QEMU has ended.
func (vm *VM) Exited() <-chan struct{} { return vm.proc.done }

// Console returns the last lines of the guest's console and QEMU's messages.
func (vm *VM) Console() string { return vm.proc.out.last(200) }

// Kill ends QEMU at once, like a crash.
func (vm *VM) Kill() {
	if vm.proc != nil {
		vm.proc.stop()
	}
}

// Close ends QEMU and removes its temporary files.
func (vm *VM) Close() {
	vm.Kill()
	if vm.qmp != nil {
		vm.qmp.close()
	}
	if vm.agent != nil {
		vm.agent.close()
	}
	os.RemoveAll(vm.dir)
}
