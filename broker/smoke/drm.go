package smoke

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// node is a DRM node that opens.
type node struct {
	Path   string `json:"path"`
	Driver string `json:"driver"`
	Render bool   `json:"render"` // a render node: no display, no authentication
	GPU    bool   `json:"gpu"`    // the driver can draw
}

// testDrivers have nodes and nothing that draws.
var testDrivers = []string{"vgem", "vkms"}

// probeDRM looks at the node that was asked for, or at every one.
func probeDRM(_ context.Context, p *probe) {
	nodes := []string{p.Node}
	if p.Node == "" {
		nodes = drmNodes()
	}
	if len(nodes) == 0 {
		p.begin("drm.node", "")
		p.end(Row{State: Degraded, Seen: "none", Cause: "the kernel has no driver for a GPU, or there is none: /dev/dri has no nodes",
			Fix: "install the GPU's kernel driver and firmware (Debian: firmware-linux); without, llvmpipe renders in software"})
		return
	}
	for _, path := range nodes {
		p.begin("drm.node", path)
		row, n := checkNode(path)
		if row.State == Failed && p.Needed {
			row.Needed = true
		}
		if n != nil {
			p.found(findings{Nodes: []node{*n}})
		}
		p.end(row)
	}
}

// drmNodes lists render nodes, then primary nodes.
func drmNodes() []string {
	render, _ := filepath.Glob("/dev/dri/renderD*") // only a bad pattern fails
	cards, _ := filepath.Glob("/dev/dri/card[0-9]*")
	return append(render, cards...)
}

func checkNode(path string) (Row, *node) {
	fd, err := dmabuf.OpenDRM(path)
	if err != nil {
		return badNode(path, err), nil
	}
	defer func() { _ = fd.Close() }()
	drv, err := dmabuf.Driver(fd)
	if err != nil {
		return Row{State: Failed, Seen: "it opens, but its driver does not answer", Cause: err.Error(), Fix: "see the kernel's log (dmesg)"}, nil
	}
	n := &node{Path: path, Driver: drv.Name, Render: strings.HasPrefix(filepath.Base(path), "render"), GPU: !slices.Contains(testDrivers, drv.Name)}
	var can []string
	has := func(capability, bit uint64, name string) {
		if v, err := dmabuf.Cap(fd, capability); err == nil && v&bit == bit {
			can = append(can, name)
		}
	}
	has(dmabuf.CapPrime, dmabuf.PrimeExport, "exports dma-bufs")
	has(dmabuf.CapPrime, dmabuf.PrimeImport, "imports dma-bufs")
	has(dmabuf.CapSyncobjTimeline, 1, "timeline syncobjs")
	row := Row{State: OK, Seen: fmt.Sprintf("%v (%s): %s", drv, drv.Desc, strings.Join(can, ", "))}
	if !slices.Contains(can, "exports dma-bufs") {
		row.State, row.Cause = Degraded, "the driver shares no buffers (DRM_CAP_PRIME)"
		row.Fix = "another --render-node, or a newer kernel"
	}
	if !n.GPU {
		row.State, row.Cause = Degraded, "a driver for tests: it has memory, and nothing that draws; llvmpipe renders in software"
		row.Fix = "a GPU with a kernel driver, for speed"
	}
	return row, n
}

// badNode says why a node cannot be used.
func badNode(path string, err error) Row {
	r := Row{State: Failed, Seen: "cannot be used", Cause: err.Error()}
	others := drmNodes()
	choose := "there are no nodes in /dev/dri; without --render-node software renders"
	if len(others) > 0 {
		choose = "--render-node with one of " + strings.Join(others, ", ")
	}
	st, statErr := os.Stat(path)
	switch {
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
		r.Seen, r.Cause = "no permission", permission(path)
		r.Fix = "sudo usermod -aG " + groupToJoin(path) + " " + userName() + ", then log in again"
	case statErr != nil:
		r.Seen, r.Fix = "it does not exist", choose
	case st.Mode()&os.ModeCharDevice == 0 || errors.Is(err, dmabuf.ErrNotSupported):
		r.Seen, r.Fix = "it is no DRM node", choose
	}
	return r
}

// permission describes who may open a file, and who asks.
func permission(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s has mode %#o, owner %s and group %s; this is user %s in groups %s", path, st.Mode&0o7777,
		ownerName(st.Uid), groupName(st.Gid), userName(), groupNames())
}

func ownerName(uid uint32) string {
	if u, err := user.LookupId(fmt.Sprint(uid)); err == nil {
		return u.Username
	}
	return fmt.Sprint(uid)
}

func groupName(gid uint32) string {
	if g, err := user.LookupGroupId(fmt.Sprint(gid)); err == nil {
		return g.Name
	}
	return fmt.Sprint(gid)
}

// groupToJoin is the group whose members may open a node: its own, or what
// distributions call the usual one.
func groupToJoin(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err == nil && st.Gid != 0 && st.Mode&0o060 == 0o060 {
		return groupName(st.Gid)
	}
	return "render"
}

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprint(os.Getuid())
}

func groupNames() string {
	ids, err := os.Getgroups()
	if err != nil {
		return "unknown"
	}
	ids = append(ids, os.Getegid())
	var out []string
	for _, id := range ids {
		if name := groupName(uint32(id)); !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return strings.Join(out, ",")
}
