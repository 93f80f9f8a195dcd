package smoke

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/gpubroker/gpubroker/broker/wayland"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// probeCompositor asks the compositor what buffers it takes. No window opens.
func probeCompositor(_ context.Context, p *probe) {
	name := p.Wayland
	if name == "" {
		name = os.Getenv("WAYLAND_DISPLAY")
	}
	p.begin("compositor", name)
	sink, err := wayland.NewSink(wayland.Config{Display: p.Wayland})
	if err != nil {
		r := Row{State: Degraded, Seen: "none: only QEMU's own display can show guests", Cause: err.Error(),
			Fix: "run it in your Wayland session, or name the socket: --wayland-display PATH"}
		if name != "" {
			r.State, r.Seen = Failed, "it cannot be used"
		}
		p.end(r)
		return
	}
	defer func() { _ = sink.Close() }()
	offers := sink.Offers()
	ls := make([]Layout, len(offers))
	for i, o := range offers {
		ls[i] = Layout{o.Fourcc, o.Modifier}
	}
	p.found(findings{Layouts: ls, Shm: true})
	if len(ls) == 0 {
		p.end(Row{State: Degraded, Seen: "it takes shared memory only", Cause: "it offers no zwp_linux_dmabuf_v1 formats: it draws with the CPU, or its GPU imports nothing",
			Fix: "a compositor that draws with OpenGL or Vulkan (weston --renderer=gl, sway, mutter, kwin on a GPU)"})
		return
	}
	items, formats := offered(ls)
	p.end(Row{State: OK, Seen: fmt.Sprintf("it takes shared memory, and dma-bufs of %d formats, %d with their modifiers", formats, len(ls)), Items: items})
}

// offered lists the modifiers of each format.
func offered(ls []Layout) (items []Item, formats int) {
	var mods []string
	flush := func(f dmabuf.Fourcc) {
		items = append(items, Item{Name: f.String(), State: OK, Seen: strings.Join(mods, ", ")})
		mods = nil
	}
	for i, l := range ls {
		mods = append(mods, l.Modifier.String())
		if i+1 == len(ls) || ls[i+1].Fourcc != l.Fourcc {
			flush(l.Fourcc)
		}
	}
	return items, len(items)
}

// takes says under which format the compositor takes a buffer of a scanout, as
// wayland.Sink.Accepts decides: the twin without alpha first.
func (f *findings) takes(l Layout) (Layout, bool) {
	if twin := (Layout{l.Fourcc.Opaque(), l.Modifier}); slices.Contains(f.Layouts, twin) {
		return twin, true
	}
	return l, slices.Contains(f.Layouts, l)
}

// tiers says which ways frames can go on this machine (README).
func (f *findings) tiers() map[string]bool {
	udmabuf := false
	if f.UDMABuf {
		_, udmabuf = f.takes(Layout{dmabuf.XRGB8888, dmabuf.ModLinear})
	}
	direct := false
	for _, l := range f.Exports {
		_, ok := f.takes(l)
		direct = direct || ok
	}
	return map[string]bool{"dmabuf": direct, "udmabuf": udmabuf, "shared": f.Shm, "shm": f.Shm, "copy": f.Shm}
}

// frames is the row that puts the others together: how frames will reach the
// compositor, and why not better.
func (f *findings) frames(rep *Report) Row {
	r := Row{Name: "frames", State: OK}
	if !f.Shm {
		r.State, r.Seen, r.Cause = Skipped, "without a compositor nothing can be said", "see the row compositor"
		return r
	}
	var direct []string
	for _, l := range f.Exports {
		as, ok := f.takes(l)
		it := Item{Name: l.String(), State: OK, Seen: "virgl exports it, and the compositor takes it without a copy as " + as.Fourcc.String()}
		if !ok {
			it.State, it.Seen = Degraded, "virgl exports it, but the compositor does not take it: copied"
		} else {
			direct = append(direct, l.String())
		}
		r.Items = append(r.Items, it)
	}
	tiers := f.tiers()
	var why []string
	switch {
	case tiers["dmabuf"]:
		r.Seen = "3D goes out without a copy (" + strings.Join(direct, ", ") + ")"
	case len(f.Exports) == 0:
		r.Seen = "3D is copied into shared memory"
		why = append(why, "3D: "+causeOf(rep, "virgl.export", "virgl.init"))
	default:
		r.Seen = "3D is copied into shared memory"
		why = append(why, "3D: the compositor takes none of "+layouts(f.Exports))
	}
	if tiers["udmabuf"] {
		r.Seen += "; guest pages go out without a copy"
	} else {
		r.Seen += "; guest pages go out as shared memory, blobs that the guest mapped without a copy"
		cause := causeOf(rep, "udmabuf")
		if f.UDMABuf {
			cause = "the compositor does not take linear XRGB8888"
		}
		why = append(why, "guest pages: "+cause)
	}
	if len(why) > 0 {
		r.State, r.Cause, r.Fix = Degraded, strings.Join(why, "; "), "see the rows above"
	}
	return r
}

// causeOf is the cause in the last row of the first of these checks that has one.
func causeOf(rep *Report, names ...string) string {
	for _, name := range names {
		for i := len(rep.Rows) - 1; i >= 0; i-- {
			if row := &rep.Rows[i]; row.Name == name && row.Cause != "" && row.State != Skipped {
				return row.Cause
			}
		}
	}
	return "see the rows above"
}
