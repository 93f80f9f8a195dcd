package lab

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// CommandOptions say how a program of the root runs. The zero value is good for
// most.
type CommandOptions struct {
	// Env is added to a small fixed environment, "NAME=value" each. Nothing of
	// the caller's own environment is passed on.
	Env []string
	// Bind lists host folders and files to show at the same path, writable. /tmp,
	// /dev, the working folder and the lab's folder (read-only) always are there.
	Bind []string
	// Dir is the working folder, the caller's own if empty.
	Dir string
}

// Command returns a command that runs argv inside the root, through bubblewrap:
// the tree read-only, with fresh /proc, /run and /var/tmp, the host's /dev, /sys,
// /tmp and network. Unix sockets under /tmp therefore work both ways.
//
// In a guest of the lab the program runs as it is, without a sandbox.
//
// All its processes die with the command, and the command dies when ctx ends or
// when the thread that started it ends. A caller whose other goroutines lock
// threads and leave them locked must use [Start] instead of cmd.Start.
func (r *Root) Command(ctx context.Context, opt CommandOptions, argv ...string) *exec.Cmd {
	var cmd *exec.Cmd
	if r.InGuest() {
		cmd = exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Dir, cmd.Env = opt.Dir, opt.environ()
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	} else {
		cmd = exec.CommandContext(ctx, "bwrap", append(r.sandbox(opt), argv...)...)
	}
	cmd.WaitDelay = 2 * time.Second
	return cmd
}

func (opt *CommandOptions) environ() []string {
	return append([]string{
		"PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin",
		"HOME=/root",
		"LANG=C.UTF-8",
		"TMPDIR=" + filepath.Clean(os.TempDir()),
	}, opt.Env...)
}

func (r *Root) sandbox(opt CommandOptions) []string {
	args := []string{
		"--die-with-parent", "--unshare-pid",
		"--tmpfs", "/",
		"--ro-bind", r.Inside("usr"), "/usr",
		"--ro-bind", r.Inside("etc"), "/etc",
		"--ro-bind", r.Inside("var"), "/var",
		"--ro-bind", r.Inside("opt"), "/opt",
		"--ro-bind", r.Inside("lab"), "/lab",
		"--symlink", "usr/bin", "/bin",
		"--symlink", "usr/sbin", "/sbin",
		"--symlink", "usr/lib", "/lib",
		"--symlink", "usr/lib64", "/lib64",
		"--proc", "/proc",
		"--dev-bind", "/dev", "/dev",
		"--ro-bind", "/sys", "/sys",
		"--bind", "/tmp", "/tmp",
		"--dir", "/run", "--dir", "/root", "--tmpfs", "/var/tmp",
		"--ro-bind", r.Dir, r.Dir,
	}
	dir := opt.Dir
	if dir == "" {
		dir, _ = os.Getwd() // "" leaves the sandbox's own choice, /
	}
	for _, path := range append([]string{dir}, opt.Bind...) {
		if path != "" && path != "/" {
			args = append(args, "--bind", path, path)
		}
	}
	if dir != "" {
		args = append(args, "--chdir", dir)
	}
	args = append(args, "--clearenv")
	for _, kv := range opt.environ() {
		if name, value, ok := strings.Cut(kv, "="); ok {
			args = append(args, "--setenv", name, value)
		}
	}
	return append(args, "--")
}
