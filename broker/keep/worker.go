package keep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/broker/virtq"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Entry is something that was kept.
type Entry struct {
	Key   string
	Value []byte
	FD    *dmabuf.FD // nil if there is none; the holder's
}

// Worker is the worker's end.
type Worker struct {
	sock   *Socket
	page   *Page
	hello  Hello
	roles  map[Role]*role
	gone   chan struct{}
	reader sync.WaitGroup

	mu      sync.Mutex // also serialises sending
	entries []Entry    // of the worker before, until somebody takes them
}

// role is a device's part of the state.
type role struct {
	mem     []byte
	ledgers []*virtq.Ledger
	conns   chan passed
}

type passed struct {
	fd     *dmabuf.FD
	resume int
}

// RoleBytes is the size of a role's file: its ledgers, and a word that says whether a
// request is half sent on its back-end channel.
const (
	RoleBytes = halfMark + 8
	halfMark  = Queues * virtq.LedgerSize
)

// half is that word. It is a vhostuser.Half.
type half []byte

func (h half) SetHalf(on bool) {
	v := uint64(0)
	if on {
		v = 1
	}
	store(h, 0, v)
}

func (h half) IsHalf() bool { return load(h, 0) == 1 }

// Adopt begins the worker's life with its socket (ownership passes): it hears the
// hello and takes what was kept.
func Adopt(fd *dmabuf.FD) (_ *Worker, err error) {
	w := &Worker{sock: NewSocket(fd), roles: map[Role]*role{}, gone: make(chan struct{})}
	defer func() {
		if err != nil {
			w.release()
			err = &OpError{Op: "start", Err: err}
		}
	}()
	m, err := w.sock.Receive()
	if err != nil {
		return nil, err
	}
	defer m.CloseFDs()
	if err := json.Unmarshal(m.Value, &w.hello); err != nil || m.Op != OpHello || len(m.FDs) != 1+len(w.hello.Roles) {
		return nil, fmt.Errorf("%w: hello %d with %d descriptors: %w", ErrMessage, m.Op, len(m.FDs), err)
	}
	if w.page, err = MapPage(m.FDs[0]); err != nil {
		return nil, err
	}
	for i, name := range w.hello.Roles {
		if w.roles[name], err = newRole(m.FDs[1+i]); err != nil {
			return nil, err
		}
	}
	for range w.hello.Entries {
		if err := w.receiveEntry(); err != nil {
			return nil, err
		}
	}
	w.reader.Go(w.read)
	return w, nil
}

func newRole(fd *dmabuf.FD) (*role, error) {
	mem, err := dmabuf.Map(fd, dmabuf.PageAlign(RoleBytes), true)
	if err != nil {
		return nil, err
	}
	r := &role{mem: mem, conns: make(chan passed, 1)}
	for i := range Queues {
		l, err := virtq.NewLedger(mem[i*virtq.LedgerSize:])
		if err != nil {
			return nil, errors.Join(err, dmabuf.Unmap(mem))
		}
		r.ledgers = append(r.ledgers, l)
	}
	return r, nil
}

func (w *Worker) receiveEntry() error {
	m, err := w.sock.Receive()
	if err != nil {
		return err
	}
	if m.Op != OpEntry || len(m.FDs) > 1 {
		m.CloseFDs()
		return fmt.Errorf("%w: message %d with %d descriptors, want an entry", ErrMessage, m.Op, len(m.FDs))
	}
	e := Entry{Key: m.Key, Value: m.Value}
	if len(m.FDs) == 1 {
		e.FD = m.FDs[0]
	}
	w.entries = append(w.entries, e)
	return nil
}

// read takes the connections that come.
func (w *Worker) read() {
	defer close(w.gone)
	for {
		m, err := w.sock.Receive()
		if err != nil {
			return
		}
		r := w.roles[Role(m.Key)]
		n, err := strconv.Atoi(string(m.Value))
		if m.Op != OpConn || r == nil || len(m.FDs) != 1 || err != nil {
			m.CloseFDs()
			continue
		}
		select {
		case r.conns <- passed{m.FDs[0], n}:
		default: // the one before was never served
			m.CloseFDs()
		}
	}
}

// Gone is closed when the supervisor is gone: there is nobody left to serve.
func (w *Worker) Gone() <-chan struct{} { return w.gone }

// History tells of the workers before.
func (w *Worker) History() History { return w.hello.History }

// Page is where the render thread says what it does.
func (w *Worker) Page() *Page { return w.page }

// Has reports whether the worker serves this role.
func (w *Worker) Has(name Role) bool { return w != nil && w.roles[name] != nil }

// Listener waits for the front-ends of a role.
func (w *Worker) Listener(name Role) *vhostuser.Listener {
	r := w.roles[name]
	return vhostuser.Passed("supervisor: "+string(name), func(ctx context.Context) (*vhostuser.Conn, error) {
		select {
		case p := <-r.conns:
			conn, err := vhostuser.FromFD(p.fd)
			if err != nil {
				return nil, err
			}
			conn.Resume = p.resume
			return conn, nil
		case <-w.gone:
			return nil, io.EOF
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
}

// Config completes a role's back-end.
func (w *Worker) Config(name Role, c *vhostuser.Config) {
	c.Ledgers = w.roles[name].ledgers
	c.Half = half(w.roles[name].mem[halfMark:])
	c.OnStart = func(resumed bool) {
		if resumed {
			return
		}
		w.Scope(name).Clear()
		if name == GPU {
			w.page.ClearHeads()
		}
	}
	c.OnEnd = func(err error) {
		why := ""
		if err != nil {
			why = err.Error()
		}
		w.send(&Message{Op: OpEnded, Key: string(name), Value: []byte(why)})
	}
}

// Ready tells the supervisor that front-ends can come.
func (w *Worker) Ready() { w.send(&Message{Op: OpReady}) }

// send ignores errors: Gone tells of the only one there is.
func (w *Worker) send(m *Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.sock.Send(m)
}

// Close lets go of everything; what is kept stays. All back-ends have ended.
func (w *Worker) Close() error {
	w.sock.Shutdown()
	w.reader.Wait()
	return w.release()
}

func (w *Worker) release() error {
	errs := []error{w.sock.Close(), w.page.Close()}
	for _, r := range w.roles {
		if r == nil {
			continue
		}
		select {
		case p := <-r.conns:
			_ = p.fd.Close()
		default:
		}
		errs = append(errs, dmabuf.Unmap(r.mem))
	}
	for _, e := range w.entries {
		_ = e.FD.Close()
	}
	w.entries = nil
	return errors.Join(errs...)
}

// Scope is the entries of one role. A nil scope keeps nothing.
type Scope struct {
	w      *Worker
	prefix string
}

// Scope returns the role's entries.
func (w *Worker) Scope(name Role) *Scope { return &Scope{w, string(name) + "/"} }

// Put keeps an entry in place of the one before; fd is borrowed and may be nil.
func (s *Scope) Put(key string, value []byte, fd *dmabuf.FD) {
	if s == nil {
		return
	}
	m := Message{Op: OpPut, Key: s.prefix + key, Value: value}
	if fd != nil {
		m.FDs = []*dmabuf.FD{fd}
	}
	s.w.send(&m)
}

// Drop forgets an entry.
func (s *Scope) Drop(key string) {
	if s != nil {
		s.w.send(&Message{Op: OpDrop, Key: s.prefix + key})
	}
}

// Clear forgets all of them, also those that nobody took.
func (s *Scope) Clear() {
	for _, e := range s.Take() {
		_ = e.FD.Close()
	}
	s.w.send(&Message{Op: OpClear, Key: s.prefix})
}

// Take returns what the worker before kept, once, without the role in its keys. The
// descriptors are the caller's.
func (s *Scope) Take() []Entry {
	if s == nil {
		return nil
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	var out []Entry
	s.w.entries = slices.DeleteFunc(s.w.entries, func(e Entry) bool {
		key, mine := strings.CutPrefix(e.Key, s.prefix)
		if mine {
			e.Key = key
			out = append(out, e)
		}
		return mine
	})
	return out
}
