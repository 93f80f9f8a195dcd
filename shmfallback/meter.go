package shmfallback

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"
)

// Meter copies pixels and counts the bytes, in one place, so that the count is
// true. The zero value is ready; all methods may be called on any goroutine.
type Meter struct {
	bytes atomic.Uint64
	also  *atomic.Uint64
}

// NewMeter returns a meter that adds every byte to also, too: a sink's own
// counter.
func NewMeter(also *atomic.Uint64) *Meter { return &Meter{also: also} }

// Bytes returns the pixel bytes copied so far.
func (m *Meter) Bytes() uint64 { return m.bytes.Load() }

func (m *Meter) count(n uint64) {
	if n == 0 {
		return
	}
	m.bytes.Add(n)
	if m.also != nil {
		m.also.Add(n)
	}
}

// Fill runs f, a copy made by somebody else (a read-back by the GPU's driver),
// and counts n bytes for it if it succeeds.
func (m *Meter) Fill(n uint64, f func() error) error {
	if err := f(); err != nil {
		return err
	}
	m.count(n)
	return nil
}

// CopyRect makes the copy that c describes. It checks every number against both
// sides before the first byte moves ([ErrInvalid], [ErrBounds]); if memory
// vanishes meanwhile it stops with [ErrFault], and the bytes of the rows done
// until then are counted. An empty rectangle copies nothing. It allocates nothing
// unless it fails.
func (m *Meter) CopyRect(c *Copy) (err error) {
	if c.W == 0 || c.H == 0 {
		return nil
	}
	cur, err := c.check()
	if err != nil {
		return &OpError{"copy", "", err}
	}
	var done uint64
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		m.count(done)
		if r := recover(); r != nil {
			err = &OpError{"copy", "", faultOf(r, done, c)}
		}
	}()
	c.run(&cur, &done)
	return nil
}

// faultOf turns the panic of a memory fault into an error and passes on any other.
func faultOf(r any, done uint64, c *Copy) error {
	fault, ok := r.(interface {
		runtime.Error
		Addr() uintptr
	})
	if !ok {
		panic(r)
	}
	return fmt.Errorf("%w at %#x after %d bytes of %d", ErrFault, fault.Addr(), done, c.rowBytes()*uint64(c.H))
}
