package virtiogpu

import (
	"encoding/binary"
	"fmt"
)

// SizeMemEntry is the size of struct virtio_gpu_mem_entry, in bytes.
const SizeMemEntry = 16

// MaxMemEntries is the most memory entries that one command may carry. A guest
// sends one per page when its memory is scattered: 262144 pages of 4 KiB are
// 1 GiB, the bytes of the largest 2D resource (16384×16384×4), and their entries
// take 4 MiB of command.
const MaxMemEntries = 262144

// MaxCommandSize is the most bytes that one command may have, its entries or
// its command stream included: the largest struct with MaxMemEntries behind it.
const MaxCommandSize = SizeResourceCreateBlob + MaxMemEntries*SizeMemEntry

// MemEntry is struct virtio_gpu_mem_entry: a piece of guest-physical memory.
type MemEntry struct {
	Addr   uint64 // guest-physical
	Length uint32 // bytes
}

// Append appends the entry to dst.
func (e MemEntry) Append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, e.Addr)
	dst = binary.LittleEndian.AppendUint32(dst, e.Length)
	return append(dst, 0, 0, 0, 0)
}

// MemEntries are the entries of a command, still in its bytes.
type MemEntries struct{ p []byte }

// DecodeEntries finds the n entries that follow the fixed struct of the command
// p (ATTACH_BACKING or CREATE_BLOB; the struct has fixed bytes). It checks n
// against MaxMemEntries and the length, and copies nothing.
func DecodeEntries(t Type, p []byte, fixed int, n uint32) (MemEntries, error) {
	if n > MaxMemEntries {
		return MemEntries{}, &OpError{Op: "decode", Type: t, Err: fmt.Errorf("%w: nr_entries %d, limit %d",
			ErrInvalidParameter, n, MaxMemEntries)}
	}
	end := fixed + int(n)*SizeMemEntry
	if len(p) < end {
		return MemEntries{}, &OpError{Op: "decode", Type: t, Err: fmt.Errorf("%w: nr_entries %d needs %d bytes, have %d",
			ErrInvalidParameter, n, end, len(p))}
	}
	return MemEntries{p[fixed:end]}, nil
}

// Entries returns the entries that follow the struct in p.
func (c *ResourceAttachBacking) Entries(p []byte) (MemEntries, error) {
	return DecodeEntries(CmdResourceAttachBacking, p, SizeResourceAttachBacking, c.NrEntries)
}

// Entries returns the entries that follow the struct in p.
func (c *ResourceCreateBlob) Entries(p []byte) (MemEntries, error) {
	return DecodeEntries(CmdResourceCreateBlob, p, SizeResourceCreateBlob, c.NrEntries)
}

// Len returns the number of entries.
func (m MemEntries) Len() int { return len(m.p) / SizeMemEntry }

// At returns entry i, 0 ≤ i < Len.
func (m MemEntries) At(i int) MemEntry {
	p := m.p[i*SizeMemEntry:]
	return MemEntry{binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint32(p[8:])}
}

// Bytes returns the sum of all lengths; it cannot overflow (MaxMemEntries × 4 GiB).
func (m MemEntries) Bytes() uint64 {
	var sum uint64
	for i := range m.Len() {
		sum += uint64(m.At(i).Length)
	}
	return sum
}
