package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// entry is how a VM's clients reach the compositor: through a listener of its own
// where the compositor has wp_security_context_manager_v1, so that it knows them for
// the VM's, else by its ordinary socket.
type entry struct {
	path     string
	folder   string // Config.Folder
	secure   bool
	name, id string // of the VM
	log      *zap.Logger

	mu     sync.Mutex
	closed bool
	plain  bool       // the compositor behind path has no security contexts
	dir    string     // holds the listener's socket; "" while there is none
	keep   *dmabuf.FD // closing it revokes the context
}

// engine is the name of gpubroker as a sandbox.
const engine = "gpubroker"

// setupTime bounds the conversation that sets a security context up.
const setupTime = 10 * time.Second

// dial makes a connection for a client.
func (e *entry) dial(ctx context.Context) (*wire.Conn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, &OpError{Op: "connect", Object: e.path, Err: ErrClosed}
	}
	if !e.secure {
		return e.dialPlain()
	}
	if e.dir != "" {
		if conn, err := wire.Dial(e.socket()); err == nil {
			return conn, nil
		}
		e.forget() // the compositor that listened there is gone
	}
	ok, err := e.establish(ctx)
	if err != nil {
		return nil, err
	}
	if !ok {
		if !e.plain {
			e.log.Info("the compositor has no security contexts; guests are filtered by gpubroker alone", zap.String("socket", e.path))
		}
		e.plain = true
		return e.dialPlain()
	}
	e.plain = false
	conn, err := wire.Dial(e.socket())
	if err != nil {
		return nil, &OpError{Op: "connect", Object: e.socket(), Err: fmt.Errorf("%w: %w", ErrCompositor, err)}
	}
	return conn, nil
}

func (e *entry) dialPlain() (*wire.Conn, error) {
	conn, err := wire.Dial(e.path)
	if err != nil {
		return nil, &OpError{Op: "connect", Object: e.path, Err: fmt.Errorf("%w: %w", ErrCompositor, err)}
	}
	return conn, nil
}

func (e *entry) socket() string { return filepath.Join(e.dir, "wayland") }

// forget drops the listener; the compositor ends the clients that came by it no
// earlier than it wants.
func (e *entry) forget() {
	_ = e.keep.Close()
	e.keep = nil
	if e.dir != "" {
		_ = os.RemoveAll(e.dir)
	}
	e.dir = ""
}

func (e *entry) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	e.forget()
}

// establish makes a security context; false says that the compositor has none.
func (e *entry) establish(ctx context.Context) (bool, error) {
	conn, err := e.dialPlain()
	if err != nil {
		return false, err
	}
	t := &talk{conn: conn, end: time.Now().Add(setupTime)}
	defer t.conn.Close()
	ok, err := e.negotiate(ctx, t)
	if err != nil {
		e.forget()
		return false, &OpError{Op: "make a security context", Object: e.path, Err: err}
	}
	return ok, nil
}

// Ids of the objects of that conversation, in the order in which they are made:
// libwayland takes no id that leaves a gap.
const (
	idRegistry = iota + 2
	idSync
	idManager
	idContext
)

func (e *entry) negotiate(ctx context.Context, t *talk) (bool, error) {
	out := &t.conn.Out
	proto.WlDisplay(wire.DisplayID).GetRegistry(out, idRegistry)
	if err := t.roundtrip(ctx); err != nil {
		return false, err
	}
	if t.manager == 0 {
		return false, nil
	}
	listener, closeTheirs, err := e.listen()
	if err != nil {
		return false, err
	}
	proto.WlRegistry(idRegistry).Bind(out, t.manager, proto.IWpSecurityContextManagerV1.String(), 1, idManager)
	proto.WpSecurityContextManagerV1(idManager).CreateListener(out, idContext, listener, closeTheirs)
	sc := proto.WpSecurityContextV1(idContext)
	sc.SetSandboxEngine(out, engine)
	if e.name != "" {
		sc.SetAppId(out, short(e.name))
	}
	if e.id != "" {
		sc.SetInstanceId(out, short(e.id))
	}
	sc.Commit(out)
	// Without the answer libwayland could drop what came last.
	return true, t.roundtrip(ctx)
}

// listen makes the socket and the pipe whose closing ends it.
func (e *entry) listen() (listener, closeTheirs *dmabuf.FD, err error) {
	if e.dir, err = os.MkdirTemp(cmp.Or(e.folder, os.Getenv("XDG_RUNTIME_DIR")), "gpubroker-"); err != nil {
		return nil, nil, err
	}
	raw, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	listener = dmabuf.NewFD(raw, "security context listener")
	if err = unix.Bind(raw, &unix.SockaddrUnix{Name: e.socket()}); err == nil {
		err = unix.Listen(raw, 64)
	}
	var ends [2]int
	if err == nil {
		err = unix.Pipe2(ends[:], unix.O_CLOEXEC)
	}
	if err != nil {
		_ = listener.Close()
		return nil, nil, fmt.Errorf("listen on %s: %w", e.socket(), err)
	}
	e.keep = dmabuf.NewFD(ends[0], "security context keeper")
	return listener, dmabuf.NewFD(ends[1], "security context end"), nil
}

// talk is the conversation that makes a security context.
type talk struct {
	conn    *wire.Conn
	end     time.Time
	manager uint32 // name of the global
	synced  bool
}

// roundtrip waits for the compositor's answer to everything so far.
func (t *talk) roundtrip(ctx context.Context) error {
	t.synced = false
	proto.WlDisplay(wire.DisplayID).Sync(&t.conn.Out, idSync)
	for !t.synced {
		if err := t.conn.Flush(); err != nil {
			return err
		}
		events := int16(unix.POLLIN)
		if t.conn.Out.Pending() > 0 {
			events |= unix.POLLOUT
		}
		polls := []unix.PollFd{{Fd: int32(t.conn.FD()), Events: events}}
		if _, err := unix.Poll(polls, 50); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Now().After(t.end) {
			return fmt.Errorf("%w: no answer in %v", ErrCompositor, setupTime)
		}
		if err := t.receive(); err != nil {
			return err
		}
	}
	return nil
}

func (t *talk) receive() error {
	if _, err := t.conn.Receive(); err != nil {
		return err
	}
	for {
		m, ok, err := t.conn.Next()
		if err != nil || !ok {
			return err
		}
		switch m.Object {
		case wire.DisplayID:
			if m.Opcode == proto.EvWlDisplayError {
				var ev proto.WlDisplayErrorEvent
				if err := ev.Decode(m); err != nil {
					return err
				}
				return hostFault("it reports error %d: %s", ev.Code, ev.Message)
			}
		case idRegistry:
			if m.Opcode == proto.EvWlRegistryGlobal {
				var ev proto.WlRegistryGlobalEvent
				if err := ev.Decode(m); err != nil {
					return err
				}
				if ev.Interface == proto.IWpSecurityContextManagerV1.String() {
					t.manager = ev.Name
				}
			}
		case idSync:
			t.synced = true
		}
	}
}
