package smoke

import (
	"context"
	"os/exec"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Options say what to look at.
type Options struct {
	RenderNode string        // empty: every node, and 3D on the first GPU's
	Wayland    string        // compositor's socket; empty: $WAYLAND_DISPLAY
	QEMU       string        // its program; empty: qemu-system-ARCH in $PATH
	Version    string        // of gpubroker, for the report
	Timeout    time.Duration // for each probe; 0: a minute
	// Child makes the command of a child process, which calls [ServeChild]. It gets its
	// standard input, error and descriptor 3 from here.
	Child func(context.Context) *exec.Cmd
}

// Run runs every probe. It takes a second where all works and up to Timeout for each
// probe that hangs. It fails in no other way than by rows that say so.
func Run(ctx context.Context, o Options) *Report {
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	rep := &Report{Schema: Schema, Version: o.Version, Kernel: kernel(), Arch: runtime.GOARCH, Time: time.Now().UTC().Truncate(time.Second)}
	begun := time.Now()
	var f findings
	run := func(t Task) {
		rows, found := o.runChild(ctx, t)
		rep.Rows = append(rep.Rows, rows...)
		f.add(&found)
	}
	run(Task{Probe: "kernel"})
	run(Task{Probe: "drm", Node: o.RenderNode, Needed: o.RenderNode != ""})
	run(Task{Probe: "compositor", Wayland: o.Wayland})
	render, alloc := chooseNodes(f.Nodes, o.RenderNode)
	for _, n := range alloc {
		run(Task{Probe: "gbm", Node: n.Path, Layouts: f.Layouts, Software: !n.GPU})
		run(Task{Probe: "gl", Node: n.Path, Software: !n.GPU})
	}
	if len(alloc) == 0 {
		rep.Rows = append(rep.Rows, without("gbm.allocate"), without("gbm.roundtrip"), without("gl.draw"))
	}
	if render != "" {
		run(Task{Probe: "virgl", Node: render, Needed: o.RenderNode != ""})
	}
	run(Task{Probe: "virgl"})
	run(Task{Probe: "kvm"})
	run(Task{Probe: "qemu", QEMU: o.QEMU, KVM: f.KVM})
	rep.Rows = append(rep.Rows, f.frames(rep))
	rep.Tiers = f.tiers()
	rep.judge()
	rep.Seconds = time.Since(begun).Seconds()
	return rep
}

// chooseNodes says where to render ("" for nowhere but surfaceless) and where to try
// the allocator. Without a GPU every node that opened is tried: test drivers (vgem)
// allocate on some of theirs.
func chooseNodes(nodes []node, asked string) (render string, alloc []node) {
	for _, n := range nodes {
		if asked != "" && n.Path == asked {
			return asked, []node{n}
		}
	}
	if asked != "" {
		return "", nil
	}
	for _, n := range nodes {
		if n.GPU && n.Render {
			return n.Path, []node{n}
		}
	}
	return "", nodes
}

// without is the row of a check that needs a DRM node where there is none.
func without(name string) Row {
	return Row{Name: name, State: Skipped, Seen: "not tried", Cause: "there is no DRM node to try it on; the rows drm.node say why"}
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
