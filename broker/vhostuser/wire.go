package vhostuser

import (
	"encoding/binary"
	"fmt"
)

// Limits and sizes of payloads (vhost-user.rst).
const (
	// maxTableRegions is VHOST_MEMORY_BASELINE_NREGIONS.
	maxTableRegions = 8
	regionSize      = 32
	configHead      = 12
	// MaxConfig is the largest config space in bytes (VHOST_USER_MAX_CONFIG_SIZE).
	MaxConfig = 256
	// MaxShmemRegions is the number of entries in a GET_SHMEM_CONFIG reply.
	MaxShmemRegions = 256
	mmapSize        = 40
)

var le = binary.LittleEndian

func short(what string, got, want int) error {
	return fmt.Errorf("%w: %s of %d bytes, must be %d", ErrMessage, what, got, want)
}

// DecodeU64 reads a payload that is one number.
func DecodeU64(p []byte) (uint64, error) {
	if len(p) != 8 {
		return 0, short("u64", len(p), 8)
	}
	return le.Uint64(p), nil
}

// AppendU64 encodes a payload that is one number.
func AppendU64(dst []byte, v uint64) []byte { return le.AppendUint64(dst, v) }

// VringState is struct vhost_vring_state: a ring's index and a number about it.
type VringState struct {
	Index uint32
	Num   uint32
}

// DecodeVringState reads a VringState.
func DecodeVringState(p []byte) (VringState, error) {
	if len(p) != 8 {
		return VringState{}, short("vring state", len(p), 8)
	}
	return VringState{Index: le.Uint32(p), Num: le.Uint32(p[4:])}, nil
}

// Append encodes the state.
func (s VringState) Append(dst []byte) []byte {
	return le.AppendUint32(le.AppendUint32(dst, s.Index), s.Num)
}

// VringAddr is struct vhost_vring_addr. The addresses are those of the
// front-end's own address space.
type VringAddr struct {
	Index uint32
	Flags uint32 // bit 0: log writes; needs LOG_SHMFD, which is not offered
	Desc  uint64
	Used  uint64
	Avail uint64
	Log   uint64
}

// DecodeVringAddr reads a VringAddr.
func DecodeVringAddr(p []byte) (VringAddr, error) {
	if len(p) != 40 {
		return VringAddr{}, short("vring address", len(p), 40)
	}
	return VringAddr{
		Index: le.Uint32(p), Flags: le.Uint32(p[4:]),
		Desc: le.Uint64(p[8:]), Used: le.Uint64(p[16:]), Avail: le.Uint64(p[24:]), Log: le.Uint64(p[32:]),
	}, nil
}

// Append encodes the address.
func (a VringAddr) Append(dst []byte) []byte {
	dst = le.AppendUint32(le.AppendUint32(dst, a.Index), a.Flags)
	for _, v := range [...]uint64{a.Desc, a.Used, a.Avail, a.Log} {
		dst = le.AppendUint64(dst, v)
	}
	return dst
}

// MemRegion is VhostUserMemoryRegion.
type MemRegion struct {
	GPA        uint64 // guest-physical address
	Size       uint64 // bytes
	UserAddr   uint64 // address in the front-end
	MmapOffset uint64 // bytes from the start of the file
}

func decodeRegion(p []byte) MemRegion {
	return MemRegion{GPA: le.Uint64(p), Size: le.Uint64(p[8:]), UserAddr: le.Uint64(p[16:]), MmapOffset: le.Uint64(p[24:])}
}

func (r MemRegion) append(dst []byte) []byte {
	for _, v := range [...]uint64{r.GPA, r.Size, r.UserAddr, r.MmapOffset} {
		dst = le.AppendUint64(dst, v)
	}
	return dst
}

// MemTable is the payload of SET_MEM_TABLE.
type MemTable struct {
	N       int // regions in use
	Regions [maxTableRegions]MemRegion
}

// DecodeMemTable reads a MemTable.
func DecodeMemTable(p []byte) (MemTable, error) {
	var t MemTable
	if len(p) < 8 {
		return t, short("memory table", len(p), 8)
	}
	n := le.Uint32(p)
	if n > maxTableRegions {
		return t, fmt.Errorf("%w: memory table of %d regions, limit %d", ErrMessage, n, maxTableRegions)
	}
	if want := 8 + int(n)*regionSize; len(p) != want {
		return t, short(fmt.Sprintf("memory table of %d regions", n), len(p), want)
	}
	t.N = int(n)
	for i := range t.N {
		t.Regions[i] = decodeRegion(p[8+i*regionSize:])
	}
	return t, nil
}

// Append encodes the table.
func (t *MemTable) Append(dst []byte) []byte {
	dst = le.AppendUint32(le.AppendUint32(dst, uint32(t.N)), 0)
	for i := range t.N {
		dst = t.Regions[i].append(dst)
	}
	return dst
}

// DecodeSingleRegion reads the payload of ADD_MEM_REG and REM_MEM_REG.
func DecodeSingleRegion(p []byte) (MemRegion, error) {
	if len(p) != 8+regionSize {
		return MemRegion{}, short("memory region", len(p), 8+regionSize)
	}
	return decodeRegion(p[8:]), nil
}

// AppendSingleRegion encodes the payload of ADD_MEM_REG and REM_MEM_REG.
func AppendSingleRegion(dst []byte, r MemRegion) []byte {
	return r.append(le.AppendUint64(dst, 0))
}

// VringFD is the number that comes with SET_VRING_KICK, CALL and ERR.
type VringFD struct {
	Index uint8
	NoFD  bool // no descriptor comes along: poll, or stay silent
}

const vringNoFD = 1 << 8

// DecodeVringFD reads a VringFD.
func DecodeVringFD(p []byte) (VringFD, error) {
	v, err := DecodeU64(p)
	if err != nil {
		return VringFD{}, err
	}
	return VringFD{Index: uint8(v), NoFD: v&vringNoFD != 0}, nil
}

// Append encodes the number.
func (f VringFD) Append(dst []byte) []byte {
	v := uint64(f.Index)
	if f.NoFD {
		v |= vringNoFD
	}
	return le.AppendUint64(dst, v)
}

// ConfigSpace is the payload of GET_CONFIG and SET_CONFIG. Data aliases the
// message after decoding.
type ConfigSpace struct {
	Offset uint32 // bytes into the config space
	Flags  uint32
	Data   []byte
}

// DecodeConfig reads a ConfigSpace.
func DecodeConfig(p []byte) (ConfigSpace, error) {
	if len(p) < configHead {
		return ConfigSpace{}, short("config", len(p), configHead)
	}
	off, size := le.Uint32(p), le.Uint32(p[4:])
	if off > MaxConfig || size > MaxConfig-off {
		return ConfigSpace{}, fmt.Errorf("%w: config range %d+%d, limit %d", ErrMessage, off, size, MaxConfig)
	}
	if want := configHead + int(size); len(p) != want {
		return ConfigSpace{}, short("config", len(p), want)
	}
	return ConfigSpace{Offset: off, Flags: le.Uint32(p[8:]), Data: p[configHead:]}, nil
}

// Append encodes the config space.
func (c ConfigSpace) Append(dst []byte) []byte {
	dst = le.AppendUint32(dst, c.Offset)
	dst = le.AppendUint32(dst, uint32(len(c.Data)))
	dst = le.AppendUint32(dst, c.Flags)
	return append(dst, c.Data...)
}

// ShmemConfig is the reply to GET_SHMEM_CONFIG: the size in bytes of each shared
// memory region, by its id; 0 for none. The sizes must be multiples of the page
// size and their sum a power of two, or QEMU 11.1 aborts.
type ShmemConfig struct {
	Sizes [MaxShmemRegions]uint64
}

// Append encodes the reply, which always has its full length.
func (c *ShmemConfig) Append(dst []byte) []byte {
	n := uint32(0)
	for _, s := range c.Sizes {
		if s != 0 {
			n++
		}
	}
	dst = le.AppendUint32(le.AppendUint32(dst, n), 0)
	for _, s := range c.Sizes {
		dst = le.AppendUint64(dst, s)
	}
	return dst
}

// DecodeShmemConfig reads a ShmemConfig.
func DecodeShmemConfig(p []byte) (ShmemConfig, error) {
	var c ShmemConfig
	if want := 8 + 8*MaxShmemRegions; len(p) != want {
		return c, short("shared memory configuration", len(p), want)
	}
	n := uint32(0)
	for i := range c.Sizes {
		c.Sizes[i] = le.Uint64(p[8+8*i:])
		if c.Sizes[i] != 0 {
			n++
		}
	}
	if got := le.Uint32(p); got != n {
		return c, fmt.Errorf("%w: %d regions announced, %d have a size", ErrMessage, got, n)
	}
	return c, nil
}

// MMap is struct VhostUserMMap: a part of a file to put into a shared memory
// region of the guest.
type MMap struct {
	ID       uint8  // which region
	FDOffset uint64 // bytes from the start of the file, a multiple of the page size
	Offset   uint64 // bytes from the start of the region
	Len      uint64 // bytes
	Write    bool   // the guest may write
}

const mmapWrite = 1

// DecodeMMap reads an MMap.
func DecodeMMap(p []byte) (MMap, error) {
	if len(p) != mmapSize {
		return MMap{}, short("mmap", len(p), mmapSize)
	}
	return MMap{
		ID: p[0], FDOffset: le.Uint64(p[8:]), Offset: le.Uint64(p[16:]), Len: le.Uint64(p[24:]),
		Write: le.Uint64(p[32:])&mmapWrite != 0,
	}, nil
}

// Append encodes the mapping.
func (m MMap) Append(dst []byte) []byte {
	dst = le.AppendUint64(dst, uint64(m.ID))
	flags := uint64(0)
	if m.Write {
		flags = mmapWrite
	}
	for _, v := range [...]uint64{m.FDOffset, m.Offset, m.Len, flags} {
		dst = le.AppendUint64(dst, v)
	}
	return dst
}
