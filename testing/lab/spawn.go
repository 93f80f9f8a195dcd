package lab

import (
	"os/exec"
	"runtime"
	"sync"
)

// The kernel sends the parent-death signal when the parent's *thread* ends, and
// Go ends threads whose goroutine returns while locked. So children are started
// on one locked thread which lives as long as any of them.
var spawner struct {
	mu       sync.Mutex
	children int             // guarded by mu: started and not yet released
	requests chan *spawnCall // guarded by mu: nil while no thread is there
}

type spawnCall struct {
	cmd  *exec.Cmd
	done chan error
}

// Start starts cmd so that it dies with this process but not with the calling
// thread. The caller calls release, once, after cmd.Wait has returned.
func Start(cmd *exec.Cmd) (release func(), err error) {
	spawner.mu.Lock()
	if spawner.children == 0 {
		spawner.requests = make(chan *spawnCall)
		go spawn(spawner.requests)
	}
	spawner.children++
	requests := spawner.requests
	spawner.mu.Unlock()

	call := &spawnCall{cmd: cmd, done: make(chan error, 1)}
	requests <- call
	release = sync.OnceFunc(releaseChild)
	if err := <-call.done; err != nil {
		release()
		return nil, err
	}
	return release, nil
}

func releaseChild() {
	spawner.mu.Lock()
	defer spawner.mu.Unlock()
	spawner.children--
	if spawner.children == 0 {
		close(spawner.requests)
		spawner.requests = nil
	}
}

func spawn(requests <-chan *spawnCall) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for call := range requests {
		call.done <- call.cmd.Start()
	}
}
