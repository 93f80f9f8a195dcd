package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gpubroker/gpubroker/broker/keep"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// worker is one worker process.
type worker struct {
	cmd   *exec.Cmd
	sock  *keep.Socket
	send  sync.Mutex                // serialises sock.Send
	ended map[keep.Role]chan string // it let go of a front-end: why
	ready chan struct{}
	done  chan struct{} // it is gone, and all that it said was heard

	quarantine bool // it was started without 3D

	hung  atomic.Bool // the watchdog killed it
	meant atomic.Bool // it was told to end
	state *os.ProcessState
}

// start runs a worker and tells it what it must know.
func (s *Supervisor) start() (_ *worker, err error) {
	ours, theirs, err := keep.Pair()
	if err != nil {
		return nil, err
	}
	w := &worker{sock: keep.NewSocket(ours), ended: map[keep.Role]chan string{}, ready: make(chan struct{}), done: make(chan struct{})}
	for name := range s.roles {
		w.ended[name] = make(chan string, 1)
	}
	file := os.NewFile(uintptr(theirs.Disown()), "worker socket")
	w.cmd = s.cfg.Command()
	w.cmd.ExtraFiles = append([]*os.File{file}, w.cmd.ExtraFiles...)
	s.page.Begin()
	err = w.cmd.Start()
	for _, f := range w.cmd.ExtraFiles {
		_ = f.Close()
	}
	if err != nil {
		_ = w.sock.Close()
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	if err := s.hello(w); err != nil {
		_ = w.cmd.Process.Kill() // it died at once, or what is wrong is ours
		s.log.Sugar().Warnf("worker did not hear its hello: %v", err)
	}
	go s.attend(w)
	return w, nil
}

func (s *Supervisor) hello(w *worker) error {
	list := s.store.list()
	s.history.Quarantine = s.quarantined.Load()
	w.quarantine = s.history.Quarantine
	h := keep.Hello{Roles: s.names, Entries: len(list), History: s.history}
	value, err := json.Marshal(h)
	if err != nil {
		return err
	}
	m := keep.Message{Op: keep.OpHello, Value: value, FDs: []*dmabuf.FD{s.pageFD}}
	for _, name := range s.names {
		m.FDs = append(m.FDs, s.roles[name].ledger)
	}
	if err := w.sock.Send(&m); err != nil {
		return err
	}
	for _, e := range list {
		if err := w.sock.Send(&keep.Message{Op: keep.OpEntry, Key: e.Key, Value: e.Value, FDs: e.FDs}); err != nil {
			return err
		}
	}
	return nil
}

// attend hears the worker until it is gone.
func (s *Supervisor) attend(w *worker) {
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { s.watch(w, stop) })
	isReady := false
	for {
		m, err := w.sock.Receive()
		if err != nil {
			var bad *keep.OpError
			if errors.As(err, &bad) {
				s.log.Sugar().Errorf("worker killed: %v", err)
				_ = w.cmd.Process.Kill()
			}
			break
		}
		switch m.Op {
		case keep.OpPut:
			s.store.put(m)
			continue
		case keep.OpDrop:
			s.store.drop(m.Key)
		case keep.OpClear:
			s.store.clear(m.Key)
		case keep.OpReady:
			if !isReady {
				isReady = true
				close(w.ready)
			}
		case keep.OpEnded:
			if c := w.ended[keep.Role(m.Key)]; c != nil {
				select {
				case c <- string(m.Value):
				default:
				}
			}
		}
		m.CloseFDs()
	}
	_ = w.cmd.Wait() // the state says how it ended
	w.state = w.cmd.ProcessState
	close(stop)
	watching.Wait() // the page that it looks at goes next
	_ = w.closeSocket()
	close(w.done)
}

func (w *worker) closeSocket() error {
	w.send.Lock()
	defer w.send.Unlock()
	return w.sock.Close()
}

// pass gives the worker a front-end's connection; fd is borrowed.
func (w *worker) pass(name keep.Role, fd *dmabuf.FD, resume int) error {
	w.send.Lock()
	defer w.send.Unlock()
	select {
	case <-w.ended[name]: // of a front-end before
	default:
	}
	return w.sock.Send(&keep.Message{Op: keep.OpConn, Key: string(name), Value: strconv.AppendInt(nil, int64(resume), 10), FDs: []*dmabuf.FD{fd}})
}

// stopTime is what a worker gets to end in good order.
const stopTime = 10 * time.Second

// stop ends the worker and waits for that.
func (w *worker) stop() {
	w.meant.Store(true)
	_ = w.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-w.done:
	case <-time.After(stopTime):
		_ = w.cmd.Process.Kill()
		<-w.done
	}
}

// cause says what a worker died of.
func (w *worker) cause() string {
	switch {
	case w.hung.Load():
		return "watchdog"
	case w.state == nil:
		return "unknown"
	}
	return w.state.String()
}
