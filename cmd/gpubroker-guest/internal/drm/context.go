package drm

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// VIRTGPU_CONTEXT_PARAM_*.
const (
	contextCapset    = 1
	contextRings     = 2
	contextPollRings = 3
	contextDebugName = 4
)

// Context says what the GPU's context of a Device is.
type Context struct {
	Capset    Capset
	Rings     int    // number of rings, 0 for the driver's own
	PollRings uint64 // bit mask of rings whose fences are events to read
	// Name is what the host is told the context is called, at most 15 bytes; empty
	// for the calling thread's name.
	Name string
}

// InitContext creates the context of a device that has ParamContextInit. It must come
// before anything that makes or imports a buffer.
func (d *Device) InitContext(c Context) error {
	named, err := d.Param(ParamDebugName)
	if err != nil {
		return err
	}
	var pin pinner
	defer pin.Unpin()
	params := []contextParam{{param: contextCapset, value: uint64(c.Capset)}}
	if c.Rings > 0 {
		params = append(params, contextParam{param: contextRings, value: uint64(c.Rings)},
			contextParam{param: contextPollRings, value: c.PollRings})
	}
	if c.Name != "" && named != 0 {
		params = append(params, contextParam{param: contextDebugName, value: address(&pin, append([]byte(c.Name), 0))})
	}
	arg := contextInitArg{count: uint32(len(params)), params: address(&pin, params)}
	create := func() error { return request(d, ioctlContextInit, &arg) }
	if c.Name != "" && named == 0 {
		err = asThread(c.Name, create)
	} else {
		err = create()
	}
	return d.fail("create a context", err)
}

// Name makes sure that the device has a context that the host knows by a name, and
// that everything imported from now on belongs to it. Devices without 3D have none,
// which is no error.
func (d *Device) Name(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.context {
		return nil
	}
	has3D, err := d.Param(Param3D)
	if err != nil || has3D == 0 {
		return err
	}
	init, err := d.Param(ParamContextInit)
	if err != nil {
		return err
	}
	if init == 0 {
		// The driver creates the context with the first request that needs one and
		// calls it by the thread's name. An empty submission is such a request, and the
		// host answers it, whatever it thinks of it.
		err = asThread(name, func() error { return d.Exec(make([]byte, 8), -1) })
	} else {
		err = d.InitContext(Context{Capset: d.renderCapset(), Name: name})
	}
	d.context = err == nil
	return err
}

// renderCapset returns the set of the contexts that OpenGL would use.
func (d *Device) renderCapset() Capset {
	mask, err := d.Param(ParamCapsets)
	if err == nil && mask&(1<<CapsetVirgl2) != 0 {
		return CapsetVirgl2
	}
	return CapsetVirgl
}

// asThread calls f on a thread that has a name of its own for as long.
func asThread(name string, f func() error) error {
	const nameLen = 15 // TASK_COMM_LEN without its NUL
	if len(name) > nameLen {
		return fmt.Errorf("a thread's name of %d bytes, limit %d", len(name), nameLen)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	old, err := threadName()
	if err != nil {
		return err
	}
	if err := setThreadName(name); err != nil {
		return err
	}
	err = f()
	if back := setThreadName(old); err == nil {
		err = back
	}
	return err
}

func setThreadName(name string) error {
	buf := append([]byte(name), 0)
	return prctl(unix.PR_SET_NAME, buf)
}

func threadName() (string, error) {
	buf := make([]byte, 16)
	err := prctl(unix.PR_GET_NAME, buf)
	return unix.ByteSliceToString(buf), err
}
