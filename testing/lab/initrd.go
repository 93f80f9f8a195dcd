package lab

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
)

//go:embed guest/init
var guestInit []byte

//go:embed guest/agent.sh
var guestAgent []byte

// initrd writes the guest's initrd to a file: busybox, the modules that reach
// the root over 9p, and the two guest scripts.
func (r *Root) initrd(file string) error {
	var c cpio
	for _, dir := range []string{"bin", "dev", "proc", "sys", "modules", "ro", "rw", "new"} {
		c.dir(dir)
	}
	c.char("dev/console", 5, 1)
	c.file("init", 0o755, guestInit)
	c.file("agent.sh", 0o644, guestAgent)

	busybox, err := os.ReadFile(r.Inside("usr/bin/busybox"))
	if err != nil {
		return fmt.Errorf("initrd: %w", err)
	}
	c.file("bin/busybox", 0o755, busybox)

	modules, err := filepath.Glob(r.Inside("lab/modules/*.ko"))
	if err != nil || len(modules) == 0 {
		return fmt.Errorf("initrd: no modules in %s: %w", r.Inside("lab/modules"), ErrNoRoot)
	}
	for _, path := range modules { // Glob sorts: the names are in load order
		body, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("initrd: %w", err)
		}
		c.file("modules/"+filepath.Base(path), 0o644, body)
	}
	if err := os.WriteFile(file, c.bytes(), 0o600); err != nil {
		return fmt.Errorf("initrd: %w", err)
	}
	return nil
}
