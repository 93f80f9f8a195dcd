package link

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// piece is how much of a pipe is read or written at a time, in bytes.
const piece = 64 << 10

// pipe is one pipe: either this end reads the file and sends, or it receives and
// writes the file.
type pipe struct {
	ps   *pipes
	id   uint32
	file *os.File // the runtime's poller waits for it; Close interrupts that

	wake chan struct{} // one token: something below changed

	mu     sync.Mutex
	credit uint32 // guarded by mu: bytes that may be sent, by whichever end sends
	queue  []byte // guarded by mu: came and is not yet being written
	last   bool   // guarded by mu: no more comes
	stop   bool   // guarded by mu: the file is closed
	refuse bool   // guarded by mu: tell the peer that nobody reads
}

// newPipe takes fd, on error too.
func newPipe(ps *pipes, id uint32, fd *dmabuf.FD) (*pipe, error) {
	defer func() { _ = fd.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(fd.Int(), &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", fd.Name(), err)
	}
	// What may make a writer wait must not: the goroutine could never be ended.
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		if err := unix.SetNonblock(fd.Int(), true); err != nil {
			return nil, fmt.Errorf("%s: %w", fd.Name(), err)
		}
	}
	p := &pipe{ps: ps, id: id, credit: Window, wake: make(chan struct{}, 1)}
	name := fd.Name()
	p.file = os.NewFile(uintptr(fd.Disown()), name) // owns the descriptor from here on
	return p, nil
}

func (p *pipe) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// end closes the file; the goroutine ends soon. The peer is not told.
func (p *pipe) end() {
	p.mu.Lock()
	p.stop = true
	p.mu.Unlock()
	_ = p.file.Close()
	p.ps.remove(p)
	p.poke()
}

// noMore says that nothing comes after what is in the queue.
func (p *pipe) noMore() {
	p.mu.Lock()
	p.last = true
	p.mu.Unlock()
	p.poke()
}

// data takes what the peer sent.
func (p *pipe) data(b []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last {
		return protocol("Data for pipe %d after its end", p.id)
	}
	if len(b) > int(p.credit) {
		return protocol("Data of %d bytes for pipe %d, its credit is %d", len(b), p.id, p.credit)
	}
	p.credit -= uint32(len(b))
	if p.stop || p.refuse {
		return nil
	}
	if !p.ps.limits.Queued.Take(len(b)) {
		p.refuse = true
		_ = p.file.Close() // interrupts a write
	} else {
		p.queue = append(p.queue, b...)
	}
	p.poke()
	return nil
}

// more takes credit that the peer gives.
func (p *pipe) more(n uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if uint64(p.credit)+uint64(n) > MaxCredit {
		return protocol("Credit of %d bytes for pipe %d, which has %d, limit %d", n, p.id, p.credit, MaxCredit)
	}
	p.credit += n
	p.poke()
	return nil
}

func (p *pipe) peerClosed(r Reason) error {
	if p.ps.mine(p.id) {
		p.mu.Lock()
		twice := p.last
		p.mu.Unlock()
		if twice {
			return protocol("Close of pipe %d a second time", p.id)
		}
		p.noMore() // also when the data could not be had: what came is written
		return nil
	}
	p.end()
	return nil
}

// send is the goroutine of a pipe whose content is here.
func (p *pipe) send() {
	reason := p.pump()
	p.mu.Lock()
	told := p.stop
	p.mu.Unlock()
	if told {
		p.end()
		return
	}
	// The pipe is not counted any more when the peer hears of its end, and those who
	// wait for pipes wait until it is said.
	p.ps.closing(1)
	p.end()
	p.ps.c.writeClose(p.id, reason)
	p.ps.closing(-1)
}

func (p *pipe) pump() Reason {
	buf := make([]byte, piece)
	var id [4]byte
	le.PutUint32(id[:], p.id)
	for {
		p.mu.Lock()
		room, stop := min(int(p.credit), piece), p.stop
		p.mu.Unlock()
		if stop {
			return NoReader
		}
		if room == 0 {
			<-p.wake
			continue
		}
		n, err := p.file.Read(buf[:room])
		if n > 0 {
			p.mu.Lock()
			p.credit -= uint32(n)
			p.mu.Unlock()
			if p.ps.c.WriteFrame(TypeData, id[:], buf[:n]) != nil {
				return NoReader
			}
		}
		if errors.Is(err, io.EOF) { // read(2) returned 0, nothing else is the end
			return EndOfData
		}
		if err != nil {
			return NoReader
		}
	}
}

// receive is the goroutine of a pipe whose content comes from the peer.
func (p *pipe) receive() {
	var spare []byte
	for {
		p.mu.Lock()
		batch := p.queue
		p.queue = spare[:0]
		last, stop, refuse := p.last, p.stop, p.refuse
		p.mu.Unlock()
		if stop || refuse || len(batch) == 0 && last {
			p.finish(len(batch), refuse)
			return
		}
		if len(batch) == 0 {
			spare = batch
			<-p.wake
			continue
		}
		if left, err := p.deliver(batch); err != nil {
			p.finish(left, true)
			return
		}
		spare = batch
	}
}

// deliver writes a batch and gives credit for what it wrote. It returns how many
// bytes are still counted as queued.
func (p *pipe) deliver(batch []byte) (int, error) {
	for len(batch) > 0 {
		n, err := p.file.Write(batch[:min(len(batch), piece)])
		p.ps.limits.Queued.Give(n)
		batch = batch[n:]
		if err != nil {
			return len(batch), err
		}
		p.mu.Lock()
		p.credit += uint32(n)
		p.mu.Unlock()
		var b [8]byte
		// The peer may be gone; what it sent is written all the same.
		_ = p.ps.c.WriteFrame(TypeCredit, Credit{p.id, uint32(n)}.Append(b[:0]))
	}
	return 0, nil
}

// finish ends a receiving pipe. held is how many bytes of it are counted as queued,
// apart from the queue.
func (p *pipe) finish(held int, tell bool) {
	p.mu.Lock()
	told := p.last || p.stop
	p.stop = true
	held += len(p.queue)
	p.queue = nil
	p.mu.Unlock()
	p.ps.limits.Queued.Give(held)
	_ = p.file.Close()
	if tell && !told {
		p.ps.c.writeClose(p.id, NoReader)
	}
	p.ps.remove(p) // after Close is sent, so that the peer never counts more pipes than this end
}

func (c *Conn) writeClose(id uint32, r Reason) {
	var b [8]byte
	_ = c.WriteFrame(TypeClose, Close{id, r}.Append(b[:0]))
}
