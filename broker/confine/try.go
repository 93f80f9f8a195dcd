package confine

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Try has a thread of its own, which then ends, go through what [Exec] and [Filter] do to
// a process, and looks whether it holds. It returns the kernel's version of landlock.
func Try() (landlock int, err error) {
	landlock, err = version()
	if err == nil {
		err = filters()
	}
	if err != nil {
		return landlock, &OpError{"look at the kernel", err}
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		done <- try()
	}()
	if err := <-done; err != nil {
		return landlock, &OpError{"try", err}
	}
	return landlock, nil
}

func try() error {
	if err := restrict(Policy{Read: []string{"/proc"}}, ""); err != nil {
		return err
	}
	if _, err := os.ReadFile("/proc/self/comm"); err != nil {
		return fmt.Errorf("landlock takes what it should leave: %w", err)
	}
	if _, err := os.ReadDir("/"); !errors.Is(err, unix.EACCES) {
		return fmt.Errorf("landlock does not hold: the root folder can be read (%v)", err)
	}
	if err := install(Policy{}, 0); err != nil {
		return err
	}
	if err := unix.Unshare(0); !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("the filter does not hold: unshare answers %v", err)
	}
	return nil
}
