package broker

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
)

// Limits bound what one guest can make the broker hold. A field that is 0 has its
// default.
type Limits struct {
	Resources int // of every kind; 262144
	// Owned is how many of them may have memory of the broker's own, which takes a
	// descriptor and a mapping each: 2D resources and host blobs; 16384. (A process
	// has 65530 mappings, and the Go runtime and the GL driver die without.)
	Owned    int
	Contexts int    // 512
	Bytes    uint64 // of host memory behind resources, about; half of the machine's, or 2 GiB
	Pieces   int    // of guest memory behind resources, where not neighbours; 4194304
}

func (l Limits) withDefaults() Limits {
	for _, d := range []struct {
		field *int
		value int
	}{{&l.Resources, 1 << 18}, {&l.Owned, 1 << 14}, {&l.Contexts, 512}, {&l.Pieces, 1 << 22}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if l.Bytes == 0 {
		l.Bytes = 2 << 30
		var info unix.Sysinfo_t
		if unix.Sysinfo(&info) == nil {
			l.Bytes = max(l.Bytes, info.Totalram*uint64(info.Unit)/2)
		}
	}
	return l
}

// usage is what the resources hold. Adding is counted at once and freeing only when
// a limit is met, by looking at every resource: so no way to lose memory has to be
// known here.
type usage struct {
	owned, pieces int
	bytes         uint64
}

func (d *Device) countUsage() {
	d.used = usage{}
	for _, r := range d.resources {
		d.used.add(r)
	}
	for r := range d.lingering {
		d.used.add(r)
	}
}

func (u *usage) add(r *resource) {
	if r.ownsMemory() {
		u.owned++
	}
	u.bytes += r.hostBytes()
	if r.backing != nil {
		u.pieces += len(r.backing.Segs)
	}
}

func (u *usage) over(l *Limits) bool {
	return u.owned > l.Owned || u.pieces > l.Pieces || u.bytes > l.Bytes
}

// admit counts a new resource, or says which limit forbids it.
func (d *Device) admit(r *resource) error {
	l := &d.limits
	if n := len(d.resources) + len(d.lingering); n >= l.Resources {
		return fmt.Errorf("%w: %d resources, limit %d", virtiogpu.ErrOutOfMemory, n, l.Resources)
	}
	return d.take(usage{owned: btoi(r.ownsMemory()), bytes: r.hostBytes()})
}

// admitPieces counts pieces of guest memory, or says that they are too many.
func (d *Device) admitPieces(n int) error { return d.take(usage{pieces: n}) }

func (d *Device) take(more usage) error {
	for range 2 {
		sum := usage{owned: d.used.owned + more.owned, pieces: d.used.pieces + more.pieces, bytes: d.used.bytes + more.bytes}
		if !sum.over(&d.limits) {
			d.used = sum
			return nil
		}
		d.countUsage()
	}
	u, l := &d.used, &d.limits
	return fmt.Errorf("%w: resources hold %d descriptors (limit %d), %d bytes (limit %d), %d pieces of memory (limit %d)",
		virtiogpu.ErrOutOfMemory, u.owned+more.owned, l.Owned, u.bytes+more.bytes, l.Bytes, u.pieces+more.pieces, l.Pieces)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// ownsMemory reports whether the broker itself holds the resource's memory.
func (r *resource) ownsMemory() bool {
	return r.kind == kind2D || r.shm != nil || r.blob != nil && r.blob.mem == virtiogpu.BlobMemHost3D
}

// hostBytes is about how much host memory the resource takes: levels and wider
// formats are not looked at.
func (r *resource) hostBytes() uint64 {
	const most = 1 << 56
	if r.blob != nil {
		if r.blob.mem == virtiogpu.BlobMemGuest {
			return uint64(len(r.shm))
		}
		return r.blob.size
	}
	shm := uint64(len(r.shm))
	a := &r.args
	n := float64(a.Width) * float64(max(a.Height, 1)) * float64(max(a.Depth, 1)) * float64(max(a.ArraySize, 1)) * float64(max(a.Samples, 1))
	if a.Target != targetBuffer {
		n *= 4
	}
	return uint64(min(n, most)) + shm
}
