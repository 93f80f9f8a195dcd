package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// hostSetup turns a guest into a host with dma-bufs but no GPU: vgem gives it a
// DRM device whose buffers are dma-bufs; udmabuf and the system heap are built in.
const hostSetup = `set -e
modprobe vgem
for node in /dev/udmabuf /dev/dma_heap/system /dev/dri/card0 /dev/dri/renderD128; do
	[ -e "$node" ] || { echo "missing: $node"; exit 1; }
done
`

// StartHostVM boots a guest that plays the host: with /dev/udmabuf,
// /dev/dma_heap/system and vgem's /dev/dri/card0, so that programs run there with
// [VM.RunBinary] deal in real dma-bufs. It returns when they may start. In such a
// program [Find], [Root.Weston] and the rest work as on this machine.
func (r *Root) StartHostVM(ctx context.Context, cfg VMConfig) (*VM, error) {
	if cfg.MemMB == 0 {
		cfg.MemMB = 4096
	}
	vm, err := r.StartVM(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if _, err := vm.Check(ctx, hostSetup); err != nil {
		vm.Close()
		return nil, fmt.Errorf("host vm: %w", err)
	}
	return vm, nil
}

// PutFile copies a file of this machine into the share and returns its path in
// the guest.
func (vm *VM) PutFile(src string) (string, error) {
	in, err := os.Open(src)
	if err != nil {
		return "", fmt.Errorf("put file: %w", err)
	}
	defer in.Close()
	name := filepath.Base(src)
	out, err := os.OpenFile(filepath.Join(vm.Share, name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return "", fmt.Errorf("put file: %w", err)
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return "", fmt.Errorf("put file: %w", err)
	}
	if err := out.Close(); err != nil {
		return "", fmt.Errorf("put file: %w", err)
	}
	return path.Join("/lab/share", name), nil
}

// RunBinary copies a program of this machine into the guest and runs it there
// with its folder, /lab/share, as the working folder. What it writes to it is in
// vm.Share afterwards. env holds "NAME=value" each.
func (vm *VM) RunBinary(ctx context.Context, binary string, env []string, args ...string) (string, int, error) {
	name, err := vm.PutFile(binary)
	if err != nil {
		return "", 0, err
	}
	var script strings.Builder
	script.WriteString("cd /lab/share\n")
	for _, kv := range env {
		script.WriteString("export " + quote([]string{kv}) + "\n")
	}
	script.WriteString("exec " + quote(append([]string{name}, args...)) + "\n")
	return vm.Run(ctx, script.String())
}

// BuildTest compiles the tests of a package to the program out, without cgo.
func BuildTest(ctx context.Context, pkg, out string, flags ...string) error {
	args := append(append([]string{"test", "-c", "-o", out}, flags...), pkg)
	return goTool(ctx, args)
}

// Build compiles a main package to the program out, without cgo.
func Build(ctx context.Context, pkg, out string, flags ...string) error {
	args := append(append([]string{"build", "-o", out}, flags...), pkg)
	return goTool(ctx, args)
}

func goTool(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w", quote(cmd.Args), errors.Join(err, errors.New(string(text))))
	}
	return nil
}
