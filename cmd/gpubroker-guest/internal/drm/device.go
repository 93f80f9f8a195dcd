package drm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// Param is a VIRTGPU_PARAM_*.
type Param uint64

// The parameters that are asked for here.
const (
	Param3D          Param = 1 // VIRTGPU_PARAM_3D_FEATURES
	ParamBlob        Param = 3 // VIRTGPU_PARAM_RESOURCE_BLOB
	ParamHostVisible Param = 4 // VIRTGPU_PARAM_HOST_VISIBLE
	ParamContextInit Param = 6 // VIRTGPU_PARAM_CONTEXT_INIT
	ParamCapsets     Param = 7 // VIRTGPU_PARAM_SUPPORTED_CAPSET_IDs
	ParamDebugName   Param = 8 // VIRTGPU_PARAM_EXPLICIT_DEBUG_NAME
)

// Capset is a VIRTGPU_DRM_CAPSET_*.
type Capset uint32

// The sets of capabilities that contexts are made with here.
const (
	CapsetVirgl       Capset = 1
	CapsetVirgl2      Capset = 2
	CapsetCrossDomain Capset = 5
)

// Device is an open render node of virtio-gpu: one context of the GPU, with its own
// table of handles. It is safe for concurrent use.
type Device struct {
	fd   *dmabuf.FD
	path string

	life   sync.RWMutex // read-locked by requests, locked to close
	closed bool         // guarded by life

	mu      sync.Mutex
	refs    map[uint32]int // holders of a handle: PRIME gives one number for one buffer
	context bool           // the driver has created the context
}

// Open opens a render node. ErrNotSupported says that it is another driver's.
func Open(path string) (*Device, error) {
	fd, err := dmabuf.OpenDRM(path)
	if err != nil {
		return nil, err
	}
	d := &Device{fd: fd, path: path, refs: map[uint32]int{}}
	name, err := d.driver()
	if err == nil && name != "virtio_gpu" {
		err = fmt.Errorf("%w: the driver is %q and not virtio_gpu", ErrNotSupported, name)
	}
	if err != nil {
		_ = fd.Close()
		return nil, d.fail("open", err)
	}
	return d, nil
}

func (d *Device) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	return &OpError{Op: op, Path: d.path, Err: err}
}

func (d *Device) driver() (string, error) {
	var pin pinner
	defer pin.Unpin()
	name := make([]byte, 32)
	arg := versionArg{nameLen: uint64(len(name)), name: address(&pin, name)}
	if err := request(d, ioctlVersion, &arg); err != nil {
		return "", err
	}
	name, _, _ = bytes.Cut(name[:min(arg.nameLen, uint64(len(name)))], []byte{0})
	return string(name), nil
}

// Path returns the node.
func (d *Device) Path() string { return d.path }

// FD returns the descriptor's number for poll(2) and read(2); ownership stays.
func (d *Device) FD() int { return d.fd.Int() }

// Close closes the node, which ends the context and all handles. Requests fail from
// then on; it does not wait for one that waits.
func (d *Device) Close() error {
	if d.life.TryLock() {
		return d.closeLocked()
	}
	go func() {
		d.life.Lock()
		_ = d.closeLocked()
	}()
	return nil
}

func (d *Device) closeLocked() error {
	defer d.life.Unlock()
	d.closed = true
	return d.fd.Close()
}

// request makes a request, during which the node is not closed.
func request[T any](d *Device, req uintptr, arg *T) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.life.RUnlock()
	return ioctl(d.fd, req, arg)
}

func (d *Device) enter() error {
	if !d.life.TryRLock() {
		return os.ErrClosed
	}
	if d.closed {
		d.life.RUnlock()
		return os.ErrClosed
	}
	return nil
}

// Param returns a parameter's value; 0 where the driver does not know it.
func (d *Device) Param(p Param) (int, error) {
	var pin pinner
	defer pin.Unpin()
	value := make([]int32, 1)
	arg := getParamArg{param: uint64(p), value: address(&pin, value)}
	err := request(d, ioctlGetParam, &arg)
	if errors.Is(err, unix.EINVAL) {
		return 0, nil
	}
	return int(value[0]), d.fail("get a parameter", err)
}

// Caps fills buf with a set of capabilities.
func (d *Device) Caps(id Capset, buf []byte) error {
	var pin pinner
	defer pin.Unpin()
	arg := getCapsArg{id: uint32(id), addr: address(&pin, buf), size: uint32(len(buf))}
	return d.fail("get capabilities", request(d, ioctlGetCaps, &arg))
}

// Exec submits a command. It waits for nothing. With ring ≥ 0 the command's fence is
// the ring's; what holds is kept, and waited for by Wait, until the fence signals.
func (d *Device) Exec(command []byte, ring int, holds ...*Handle) error {
	const flagRing = 4 // VIRTGPU_EXECBUF_RING_IDX
	var pin pinner
	defer pin.Unpin()
	handles := make([]uint32, 0, len(holds))
	for _, h := range holds {
		handles = append(handles, h.id)
	}
	arg := execArg{size: uint32(len(command)), command: address(&pin, command), fence: -1,
		handles: address(&pin, handles), numHandles: uint32(len(handles))}
	if ring >= 0 {
		arg.flags, arg.ring = flagRing, uint32(ring)
	}
	return d.fail("submit", request(d, ioctlExec, &arg))
}
