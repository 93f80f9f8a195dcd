package drm

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Node is a render node of virtio-gpu and what its device can do.
type Node struct {
	Path        string
	Dev         uint64 // dev_t, as stat(2) says
	Has3D       bool
	Blob        bool
	HostVisible bool
	ContextInit bool
	Capsets     uint64 // bit mask by Capset
	Scanouts    bool   // screens can be connected to it
}

// Imports reports whether the device is one for importing dma-bufs of other devices:
// Linux (6.14 and later) allows that where there are blobs and no 3D, and the host's
// device for it has no scanouts. A GPU without 3D has some.
func (n Node) Imports() bool { return n.Blob && !n.Has3D && !n.Scanouts }

// CrossDomain reports whether cross-domain contexts can be made.
func (n Node) CrossDomain() bool {
	return n.Has3D && n.Blob && n.ContextInit && n.Capsets&(1<<CapsetCrossDomain) != 0
}

// HostMemory reports whether blobs of the host's memory can be mapped.
func (n Node) HostMemory() bool { return n.Has3D && n.Blob && n.HostVisible }

// Nodes finds the render nodes of virtio-gpu. Nodes of other drivers are left out;
// the error says which could not be asked, and comes with those that could.
func Nodes() ([]Node, error) {
	paths, err := filepath.Glob("/dev/dri/renderD*")
	if err != nil {
		return nil, err
	}
	var nodes []Node
	var errs []error
	for _, path := range paths {
		n, err := probe(path)
		switch {
		case errors.Is(err, ErrNotSupported):
		case err != nil:
			errs = append(errs, err)
		default:
			nodes = append(nodes, n)
		}
	}
	return nodes, errors.Join(errs...)
}

func probe(path string) (Node, error) {
	d, err := Open(path)
	if err != nil {
		return Node{}, err
	}
	defer func() { _ = d.Close() }()
	n := Node{Path: path}
	var st unix.Stat_t
	if err := unix.Fstat(d.FD(), &st); err != nil {
		return Node{}, d.fail("ask for the number", err)
	}
	n.Dev = uint64(st.Rdev)
	connectors, err := filepath.Glob(filepath.Join("/sys/class/drm", filepath.Base(path), "device/drm/card*/card*-*"))
	if err != nil {
		return Node{}, d.fail("look for connectors", err)
	}
	n.Scanouts = len(connectors) > 0
	for _, p := range []struct {
		param Param
		set   func(int)
	}{
		{Param3D, func(v int) { n.Has3D = v != 0 }},
		{ParamBlob, func(v int) { n.Blob = v != 0 }},
		{ParamHostVisible, func(v int) { n.HostVisible = v != 0 }},
		{ParamContextInit, func(v int) { n.ContextInit = v != 0 }},
		{ParamCapsets, func(v int) { n.Capsets = uint64(uint32(v)) }},
	} {
		v, err := d.Param(p.param)
		if err != nil {
			return Node{}, fmt.Errorf("%s: parameter %d: %w", path, p.param, err)
		}
		p.set(v)
	}
	return n, nil
}
