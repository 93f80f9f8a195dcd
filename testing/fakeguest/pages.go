package fakeguest

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/gpubroker/gpubroker/broker/guestmem"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
)

// PageSize is the guest's page size in bytes.
const PageSize = 4096

// ErrNoMemory says that the guest's RAM is used up.
var ErrNoMemory = errors.New("out of guest pages")

// Pages hands out pages of guest RAM, by number. The order is shuffled, so that
// neighbours in a list are seldom neighbours in memory, as in a guest that has
// run for a while.
type Pages struct {
	ram  *vhostusertest.RAM
	free []uint32 // page numbers in the file; the last one goes out next
	used []bool   // by page number
}

func newPages(ram *vhostusertest.RAM, reserved int, seed uint64) *Pages {
	total := len(ram.Mem) / PageSize
	p := &Pages{ram: ram, used: make([]bool, total)}
	for i := range reserved {
		p.used[i] = true
	}
	p.free = make([]uint32, 0, total)
	for i := reserved; i < total; i++ {
		p.free = append(p.free, uint32(i))
	}
	rnd := rand.New(rand.NewPCG(seed, seed))
	rnd.Shuffle(len(p.free), func(i, j int) { p.free[i], p.free[j] = p.free[j], p.free[i] })
	return p
}

// Free is the number of pages left.
func (p *Pages) Free() int { return len(p.free) }

func (p *Pages) pop() (uint32, error) {
	for n := len(p.free); n > 0; n = len(p.free) {
		page := p.free[n-1]
		p.free = p.free[:n-1]
		if !p.used[page] { // a run may have taken it from the middle
			p.used[page] = true
			return page, nil
		}
	}
	return 0, ErrNoMemory
}

func (p *Pages) push(page uint32) {
	p.used[page] = false
	p.free = append(p.free, page)
}

func (p *Pages) gpa(page uint32) uint64 { return p.ram.GPA(uint64(page) * PageSize) }

func (p *Pages) mem(page uint32) []byte {
	off := uint64(page) * PageSize
	return p.ram.Mem[off : off+PageSize : off+PageSize]
}

// Block is memory that the guest holds for a resource: an ordered list of pages.
type Block struct {
	Entries []guestmem.Entry // one per page; the last one may be shorter
	Size    uint64           // bytes

	pages *Pages
	list  []uint32
}

// Scattered takes pages for size bytes, wherever they are.
func (p *Pages) Scattered(size uint64) (*Block, error) {
	b := &Block{Size: size, pages: p}
	for left := size; left > 0; {
		page, err := p.pop()
		if err != nil {
			b.Free()
			return nil, fmt.Errorf("block of %d bytes: %w", size, err)
		}
		n := min(left, PageSize)
		b.list = append(b.list, page)
		b.Entries = append(b.Entries, guestmem.Entry{Addr: p.gpa(page), Len: uint32(n)})
		left -= n
	}
	return b, nil
}

// Contiguous takes pages for size bytes that lie one behind the other.
func (p *Pages) Contiguous(size uint64) (*Block, error) {
	need := int((size + PageSize - 1) / PageSize)
	run := 0
	for i := range p.used {
		if p.used[i] || run > 0 && p.gpa(uint32(i)) != p.gpa(uint32(i-1))+PageSize {
			run = 0
		}
		if p.used[i] {
			continue
		}
		if run++; run < need {
			continue
		}
		b := &Block{Size: size, pages: p}
		for j := i + 1 - need; j <= i; j++ {
			p.used[j] = true
			b.list = append(b.list, uint32(j))
		}
		b.Entries = []guestmem.Entry{{Addr: p.gpa(b.list[0]), Len: uint32(size)}}
		p.dropUsed()
		return b, nil
	}
	return nil, fmt.Errorf("%d bytes in one piece: %w", size, ErrNoMemory)
}

// dropUsed takes out of the free list what Contiguous marked.
func (p *Pages) dropUsed() {
	kept := p.free[:0]
	for _, page := range p.free {
		if !p.used[page] {
			kept = append(kept, page)
		}
	}
	p.free = kept
}

// Free gives the pages back. A second Free does nothing.
func (b *Block) Free() {
	for _, page := range b.list {
		b.pages.push(page)
	}
	b.list, b.Entries, b.Size = nil, nil, 0
}

// WriteAt copies src to the block, off bytes from its start, as the guest's CPU
// would. It panics if it does not fit.
func (b *Block) WriteAt(src []byte, off uint64) {
	b.each(off, len(src), func(mem []byte) { src = src[copy(mem, src):] })
}

// ReadAt copies from the block. It panics beyond its end.
func (b *Block) ReadAt(dst []byte, off uint64) {
	b.each(off, len(dst), func(mem []byte) { dst = dst[copy(dst, mem):] })
}

func (b *Block) each(off uint64, n int, f func(mem []byte)) {
	if off > b.Size || uint64(n) > b.Size-off {
		panic(fmt.Sprintf("fakeguest: %d bytes at %d of a block of %d", n, off, b.Size))
	}
	for n > 0 {
		mem := b.pages.mem(b.list[off/PageSize])[off%PageSize:]
		mem = mem[:min(len(mem), n)]
		f(mem)
		n -= len(mem)
		off += uint64(len(mem))
	}
}
