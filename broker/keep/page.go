package keep

import (
	"bytes"
	"fmt"
	"os"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Page is where a worker says what its render thread does: a page of shared memory that
// stays when the worker dies. A nil page takes everything and does nothing.
//
// The worker's methods belong to its render thread. Doing may be called from any
// process; it may see a half of one command and a half of the next.
type Page struct{ mem []byte }

// Where things are in the page.
const (
	pageBeat    = 0  // u64: how often the thread came around
	pageIdle    = 8  // u64: 1 while it waits for something to do
	pageCommand = 16 // u64: type of the command being served, 0 for none
	pageContext = 24 // u64: its context; the last one's if none is served
	pageRetry   = 32 // u64: a command that is served again, see Retry
	pageName    = 64 // the context's name
	maxName     = 64

	// What heads show and their pointers, each a length (u32) and a command's bytes.
	pageHeads    = 512
	pageCursors  = pageHeads + maxHeads*headBytes
	headBytes    = 4 + 124
	cursorBytes  = 4 + 60
	maxHeads     = 16
	pageNeeds    = pageCursors + maxHeads*cursorBytes
	headCommand  = headBytes - 4
	cursorMemory = cursorBytes - 4
)

// NewPage makes a page and its file, which the caller owns.
func NewPage() (*Page, *dmabuf.FD, error) {
	fd, err := dmabuf.NewMemfd("worker page", int64(os.Getpagesize()))
	if err != nil {
		return nil, nil, err
	}
	p, err := MapPage(fd)
	if err != nil {
		_ = fd.Close()
		return nil, nil, err
	}
	return p, fd, nil
}

// MapPage maps the page of a file of NewPage.
func MapPage(fd *dmabuf.FD) (*Page, error) {
	mem, err := dmabuf.Map(fd, int64(os.Getpagesize()), true)
	if err != nil {
		return nil, err
	}
	return &Page{mem}, nil
}

// Close unmaps it.
func (p *Page) Close() error {
	if p == nil {
		return nil
	}
	mem := p.mem
	p.mem = nil
	return dmabuf.Unmap(mem)
}

// Begin is the page of a worker that has done nothing yet; what heads show stays.
func (p *Page) Begin() {
	store(p.mem, pageBeat, 0)
	store(p.mem, pageIdle, 0)
	store(p.mem, pageCommand, 0)
	store(p.mem, pageContext, 0)
	clear(p.mem[pageName : pageName+maxName])
}

// ClearHeads forgets what heads show.
func (p *Page) ClearHeads() {
	if p != nil {
		clear(p.mem[pageHeads:pageNeeds])
		store(p.mem, pageRetry, 0)
	}
}

// SetHead keeps the command that gave a head its picture; nil: it shows nothing.
func (p *Page) SetHead(head int, command []byte) {
	if p != nil {
		p.set(pageHeads+head*headBytes, headCommand, command)
	}
}

// Head returns the command of SetHead; nil if there is none.
func (p *Page) Head(head int) []byte { return p.get(pageHeads+head*headBytes, headCommand) }

// SetCursor keeps the command that shows a head's pointer where it is.
func (p *Page) SetCursor(head int, command []byte) {
	if p != nil {
		p.set(pageCursors+head*cursorBytes, cursorMemory, command)
	}
}

// Cursor returns the command of SetCursor; nil if there is none.
func (p *Page) Cursor(head int) []byte { return p.get(pageCursors+head*cursorBytes, cursorMemory) }

// set may be cut short by the process's end: then there is nothing.
func (p *Page) set(off, room int, value []byte) {
	store32(p.mem, off, 0)
	value = value[:min(len(value), room)] // a command may be longer than its struct
	copy(p.mem[off+4:], value)
	store32(p.mem, off, uint32(len(value)))
}

func (p *Page) get(off, room int) []byte {
	n := load32(p.mem, off)
	if n == 0 || int(n) > room {
		return nil
	}
	return bytes.Clone(p.mem[off+4 : off+4+int(n)])
}

// Retry notes that a command that a worker died over is served again, and reports
// whether that was tried before. mark tells commands apart and is not 0.
func (p *Page) Retry(mark uint64) (before bool) {
	if p == nil {
		return false
	}
	before = load(p.mem, pageRetry) == mark
	store(p.mem, pageRetry, mark)
	return before
}

// Idle says whether the thread waits for something to do.
func (p *Page) Idle(on bool) {
	if p == nil {
		return
	}
	v := uint64(0)
	if on {
		v = 1
	}
	store(p.mem, pageIdle, v)
	store(p.mem, pageBeat, load(p.mem, pageBeat)+1)
}

// Enter says which command is served now, and of which context.
func (p *Page) Enter(command, ctx uint32, name string) {
	if p == nil {
		return
	}
	if ctx != 0 {
		store(p.mem, pageContext, uint64(ctx))
		n := copy(p.mem[pageName:pageName+maxName-1], name)
		p.mem[pageName+n] = 0
	}
	store(p.mem, pageBeat, load(p.mem, pageBeat)+1)
	store(p.mem, pageCommand, uint64(command)|uint64(ctx)<<32)
}

// Leave ends Enter.
func (p *Page) Leave() {
	if p != nil {
		store(p.mem, pageCommand, 0)
	}
}

// Doing is what stands in a page.
type Doing struct {
	Beat    uint64 // counts commands and turns
	Idle    bool   // it waits for something to do
	Command uint32 // being served, 0 for none
	Context uint32 // of the command, or the last one that had any; 0 for none
	Name    string // of Context, as the guest says: up to 63 bytes of anything
	Inside  bool   // Context is the command's own
}

// Doing reads the page.
func (p *Page) Doing() Doing {
	command := load(p.mem, pageCommand)
	d := Doing{
		Beat: load(p.mem, pageBeat), Idle: load(p.mem, pageIdle) == 1,
		Command: uint32(command), Context: uint32(load(p.mem, pageContext)),
	}
	d.Inside = d.Command != 0 && uint32(command>>32) == d.Context && d.Context != 0
	name := bytes.Clone(p.mem[pageName : pageName+maxName])
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	d.Name = string(name)
	return d
}

// Culprit says for people which context a worker that died was busy with.
func (d Doing) Culprit() string {
	switch {
	case d.Inside:
		return fmt.Sprintf("context %d (%q)", d.Context, d.Name)
	case d.Command != 0:
		return "a command without a context"
	case d.Context != 0:
		return fmt.Sprintf("nothing; the last was context %d (%q)", d.Context, d.Name)
	}
	return "nothing yet"
}
