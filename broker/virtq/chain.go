package virtq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime/debug"

	"github.com/gpubroker/gpubroker/broker/guestmem"
)

// MaxIndirect is the most descriptors a chain with an indirect table may have,
// if the queue is not larger still. The specification says queue size, but Linux
// sends longer ones (a command in vmalloc memory has a descriptor per page), and
// QEMU's own devices take 1024. 4096 pages are a command of 16 MiB.
const MaxIndirect = 4096

// Descriptor flags (virtio 1.2, 2.7.5).
const (
	descNext     = 1
	descWrite    = 2
	descIndirect = 4
)

// span is a descriptor's buffer in guest-physical memory.
type span struct {
	gpa uint64
	len uint32
}

// Chain is one request of the driver: a readable part, then a writable one. It
// is filled by [Queue.Next] and can be used again; a device that completes
// chains out of order keeps one Chain per chain in flight.
//
// Readable and Writable alias guest memory: the guest changes it at will, so
// copy once before validating. The slices are valid until the memory table
// changes; the methods translate again when it did, so a chain may be kept for
// as long as a fence takes, also across vm stop and cont.
type Chain struct {
	Head     uint16
	Readable [][]byte
	Writable [][]byte

	mem      *guestmem.Map
	epoch    uint64
	spans    []span // all descriptors in order
	nread    int    // how many of them are readable
	readLen  uint64 // bytes
	writeLen uint64 // bytes
	cursor   uint64 // bytes written by Write
}

func (c *Chain) reset(mem *guestmem.Map, head uint16) {
	c.clear()
	c.Head, c.mem, c.epoch = head, mem, mem.Epoch()
}

// clear empties the chain but keeps Head and capacity.
func (c *Chain) clear() {
	c.Readable, c.Writable, c.spans = c.Readable[:0], c.Writable[:0], c.spans[:0]
	c.nread, c.readLen, c.writeLen, c.cursor = 0, 0, 0, 0
}

// ReadLen is the length of the readable part in bytes.
func (c *Chain) ReadLen() uint64 { return c.readLen }

// WriteLen is the length of the writable part in bytes.
func (c *Chain) WriteLen() uint64 { return c.writeLen }

// Written is the number of bytes that Write put into the writable part: what
// Push takes.
func (c *Chain) Written() uint32 { return uint32(c.cursor) }

// ReadAt copies from the readable part, starting off bytes into it. It returns
// the number of bytes copied, fewer than len(dst) if the part ends before.
func (c *Chain) ReadAt(dst []byte, off uint64) (int, error) {
	if err := c.refresh(); err != nil {
		return 0, err
	}
	return guestmem.ReadAt(dst, c.Readable, off)
}

// Write copies p to the writable part, after what was written before. It returns
// the number of bytes copied, fewer than len(p) if the part is full.
func (c *Chain) Write(p []byte) (int, error) {
	if err := c.refresh(); err != nil {
		return 0, err
	}
	n, err := guestmem.WriteAt(c.Writable, c.cursor, p)
	c.cursor += uint64(n)
	return n, err
}

// refresh translates the chain's addresses again if the memory table changed.
func (c *Chain) refresh() error {
	if c.mem == nil || c.epoch == c.mem.Epoch() {
		return nil
	}
	c.Readable, c.Writable = c.Readable[:0], c.Writable[:0]
	for i, s := range c.spans {
		part := &c.Writable
		if i < c.nread {
			part = &c.Readable
		}
		segs, err := c.mem.Segments(*part, s.gpa, uint64(s.len))
		if err != nil {
			c.Readable, c.Writable = c.Readable[:0], c.Writable[:0]
			return err
		}
		*part = segs
	}
	c.epoch = c.mem.Epoch()
	return nil
}

var errWriteOrder = errors.New("readable descriptor after a writable one")

func (c *Chain) add(gpa uint64, length uint32, write bool) (err error) {
	part, total := &c.Readable, &c.readLen
	if write {
		part, total = &c.Writable, &c.writeLen
	} else if len(c.spans) > c.nread {
		return errWriteOrder
	}
	*part, err = c.mem.Segments(*part, gpa, uint64(length))
	if err != nil {
		return err
	}
	c.spans = append(c.spans, span{gpa, length})
	if !write {
		c.nread++
	}
	*total += uint64(length)
	if c.readLen+c.writeLen > math.MaxUint32 {
		return fmt.Errorf("%d bytes, limit %d", c.readLen+c.writeLen, uint64(math.MaxUint32))
	}
	return nil
}

// walk follows the chain from c.Head. Each descriptor is copied once and only
// the copy is looked at.
func (q *Queue) walk(c *Chain) (err error) {
	defer guestmem.Recover(debug.SetPanicOnFault(true), &err)
	next := c.Head
	for n := 0; ; n++ {
		if n == q.size {
			return fmt.Errorf("more than %d descriptors, or a loop", q.size)
		}
		if int(next) >= q.size {
			return fmt.Errorf("next descriptor %d, table size %d", next, q.size)
		}
		at := int(next) * descSize
		copy(q.scratch[:], q.desc[at:at+descSize])
		gpa, length, flags, follow := q.decode()
		if flags&descIndirect != 0 {
			if flags&descNext != 0 {
				return fmt.Errorf("descriptor %d has both INDIRECT and NEXT", next)
			}
			return q.walkTable(c, gpa, length, n)
		}
		if err := c.add(gpa, length, flags&descWrite != 0); err != nil {
			return fmt.Errorf("descriptor %d: %w", next, err)
		}
		if flags&descNext == 0 {
			return nil
		}
		next = follow
	}
}

// walkTable follows an indirect table; before is the number of descriptors that
// came ahead of it.
func (q *Queue) walkTable(c *Chain, gpa uint64, length uint32, before int) error {
	if !q.indirect {
		return errors.New("indirect descriptor, but the feature was not negotiated")
	}
	if length == 0 || length%descSize != 0 {
		return fmt.Errorf("indirect table of %d bytes, must be a multiple of %d", length, descSize)
	}
	size := uint64(length / descSize)
	// The table may be larger than what the chain uses of it, but no index can
	// name more than 65536 of its entries.
	if size > math.MaxUint16+1 {
		return fmt.Errorf("indirect table of %d descriptors, limit %d", size, math.MaxUint16+1)
	}
	limit := min(int(size), max(MaxIndirect, q.size)-before)
	var err error
	if q.table, err = q.mem.Segments(q.table[:0], gpa, uint64(length)); err != nil {
		return fmt.Errorf("indirect table: %w", err)
	}
	next := uint16(0)
	for n := 0; ; n++ {
		if n == limit {
			return fmt.Errorf("more than %d descriptors in the indirect table, or a loop", limit)
		}
		if uint64(next) >= size {
			return fmt.Errorf("next indirect descriptor %d, table size %d", next, size)
		}
		q.fetch(uint64(next) * descSize)
		addr, ln, flags, follow := q.decode()
		if flags&descIndirect != 0 {
			return fmt.Errorf("indirect descriptor %d is itself indirect", next)
		}
		if err := c.add(addr, ln, flags&descWrite != 0); err != nil {
			return fmt.Errorf("indirect descriptor %d: %w", next, err)
		}
		if flags&descNext == 0 {
			return nil
		}
		next = follow
	}
}

// fetch copies the descriptor at byte off of the indirect table to scratch.
func (q *Queue) fetch(off uint64) {
	n := 0
	for _, s := range q.table {
		if off >= uint64(len(s)) {
			off -= uint64(len(s))
			continue
		}
		n += copy(q.scratch[n:], s[off:])
		if n == descSize {
			return
		}
		off = 0
	}
}

func (q *Queue) decode() (gpa uint64, length uint32, flags, next uint16) {
	d := &q.scratch
	return binary.LittleEndian.Uint64(d[0:]), binary.LittleEndian.Uint32(d[8:]),
		binary.LittleEndian.Uint16(d[12:]), binary.LittleEndian.Uint16(d[14:])
}
