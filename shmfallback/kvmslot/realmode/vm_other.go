//go:build !amd64

package realmode

import (
	"fmt"
	"runtime"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// VM is a virtual machine with one CPU.
type VM struct{}

// New returns ErrNotSupported on this architecture.
func New(uint64) (*VM, error) {
	return nil, fmt.Errorf("realmode: %w: the guest is x86 code, this machine is %s", ErrNotSupported, runtime.GOARCH)
}

// FD returns nil.
func (*VM) FD() *dmabuf.FD { return nil }

// Run does nothing.
func (*VM) Run() error { return ErrNotSupported }

// Close does nothing.
func (*VM) Close() {}
