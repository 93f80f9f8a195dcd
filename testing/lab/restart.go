package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Kill ends the compositor at once, like a crash: its socket stays in the file
// system, and nobody answers there until Restart.
func (c *Compositor) Kill() { c.proc.stop() }

// Restart starts the compositor anew on the same socket, after Kill or instead of
// it, and waits until it answers. The caller still ends it with Stop.
func (c *Compositor) Restart(ctx context.Context) error {
	c.proc.stop()
	proc, err := c.start()
	if err != nil {
		return err
	}
	c.proc = proc
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return proc.waitFor(ctx, "restart", func() bool { return Listening(c.Socket()) })
}

// Signal sends a signal to the compositor itself, not to the sandbox around it.
func (c *Compositor) Signal(sig syscall.Signal) error {
	pid, err := c.proc.innerPID()
	if err != nil {
		return err
	}
	return syscall.Kill(pid, sig)
}

// innerPID finds the program below bubblewrap, by its name.
func (p *process) innerPID() (int, error) {
	pid := p.cmd.Process.Pid
	for {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", p.name, err)
		}
		if strings.TrimSpace(string(name)) == filepath.Base(p.name) {
			return pid, nil
		}
		kids := Children(pid)
		if len(kids) == 0 {
			return 0, fmt.Errorf("%s: no such process below %d", p.name, p.cmd.Process.Pid)
		}
		pid = kids[0]
	}
}
