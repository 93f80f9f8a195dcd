package shm

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/gpubroker/gpubroker/cmd/gpubroker-guest/internal/drm"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Tier is a way in which pixels come to the host.
type Tier int

// The ways, best first.
const (
	TierImport Tier = iota
	TierBlob
	TierStream
	tiers
)

// String returns the name that status shows.
func (t Tier) String() string {
	return [...]string{"import", "blob", "stream"}[t]
}

const (
	// minBlob is the size in bytes below which a mapping of host memory costs more
	// than sending the pixels.
	minBlob = 64 << 10
	// maxBlobs and maxBlobBytes bound what is mapped at a time: a VMM has few slots.
	maxBlobs     = 128
	maxBlobBytes = 512 << 20
)

// Store makes buffers for one client. Its fields are set before use; it is safe for
// concurrent use.
type Store struct {
	Import   *Importer // nil if there is none
	NoImport error     // why
	// Blobs returns where host memory can be made (blob id 0); nil if nowhere.
	Blobs func() (*drm.Device, error)
	// Shared counts for all clients; never nil.
	Shared *Totals

	mu  sync.Mutex
	why string // why the last buffer did not get a better way
}

// Totals counts over all clients. Safe for concurrent use.
type Totals struct {
	Buffers [tiers]atomic.Uint64 // made
	Bytes   [tiers]atomic.Uint64 // copied; none for TierImport

	blobs     atomic.Int64
	blobBytes atomic.Int64
}

// Why says why the newest buffer did not get a better way, "" if it has the best.
func (s *Store) Why() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.why
}

// NewBuffer makes a buffer of a part of a pool, which it retains. The caller closes
// it. ErrInvalid names what breaks the rules of wl_shm.
func (s *Store) NewBuffer(p *Pool, g Geometry) (*Buffer, error) {
	if err := g.check(p); err != nil {
		return nil, err
	}
	b := &Buffer{Geometry: g, pool: p, totals: s.Shared}
	errImport := s.tryImport(b)
	why := errImport
	if errImport != nil {
		b.Tier = TierBlob
		if errBlob := s.tryBlob(b); errBlob != nil {
			b.Tier = TierStream
			why = errors.Join(errImport, errBlob)
		}
	}
	s.mu.Lock()
	s.why = ""
	if why != nil {
		s.why = why.Error()
	}
	s.mu.Unlock()
	p.retain()
	s.Shared.Buffers[b.Tier].Add(1)
	return b, nil
}

func (s *Store) tryImport(b *Buffer) (err error) {
	if s.Import == nil {
		return s.NoImport
	}
	b.handle, b.InPage, err = s.Import.span(b.pool.fd, int64(b.Offset), b.bytes())
	return err
}

func (s *Store) tryBlob(b *Buffer) error {
	if s.Blobs == nil {
		return errors.New("no host memory can be mapped")
	}
	size := dmabuf.PageAlign(b.bytes())
	if size < minBlob {
		return fmt.Errorf("%d bytes are too few for a mapping", b.bytes())
	}
	if s.Shared.blobs.Add(1) > maxBlobs || s.Shared.blobBytes.Add(size) > maxBlobBytes {
		s.Shared.unblob(size)
		return fmt.Errorf("host memory is mapped for %d buffers already", maxBlobs)
	}
	dev, err := s.Blobs()
	if err != nil {
		s.Shared.unblob(size)
		return err
	}
	h, err := dev.CreateBlob(drm.BlobHost3D, drm.BlobMappable|drm.BlobShareable, uint64(size), 0)
	if err == nil {
		if b.mem, err = h.Map(); err == nil {
			b.handle = h
			return nil
		}
		h.Close()
	}
	s.Shared.unblob(size)
	return err
}

func (t *Totals) unblob(size int64) {
	t.blobs.Add(-1)
	t.blobBytes.Add(-size)
}
