package broker

import (
	"fmt"
	"sort"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/keep"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
)

// Frames counts frames by the way they left.
type Frames struct {
	DMABuf  uint64 `json:"dmabuf"`
	Shm     uint64 `json:"shm"`
	Skipped uint64 `json:"skipped"` // superseded before the display took them
}

// Latency is a distribution in microseconds.
type Latency struct {
	P50   uint64 `json:"p50"`
	P99   uint64 `json:"p99"`
	Count uint64 `json:"count"`

	Distribution display.Distribution `json:"-"`
}

// Status is what the control socket answers: counters and the resource table.
type Status struct {
	Version   string         `json:"version"`
	PID       int            `json:"pid"` // of the process that serves; a supervisor's worker
	Renderer  RendererStatus `json:"renderer"`
	Display   string         `json:"display"`
	Worker    *keep.History  `json:"worker,omitempty"` // of a supervised broker: those before this one
	Connected bool           `json:"connected"`        // a front-end is being served
	Frames    Frames         `json:"frames"`
	// Tiers counts frames by how their pixels reached the display: dmabuf, udmabuf,
	// shared, shm, copy (docs/architecture.md).
	Tiers       map[string]uint64 `json:"tiers"`
	BytesCopied uint64            `json:"bytes_copied"`
	Commands    uint64            `json:"commands"`
	Errors      uint64            `json:"errors"`
	RingErrors  uint64            `json:"ring_errors"`
	Submits     uint64            `json:"submits"`
	Flushes     uint64            `json:"flushes"`
	Fences      uint64            `json:"fences"`
	// FencesOutstanding are commands whose completion waits for the renderer, the display
	// or a message for a cross-domain context.
	FencesOutstanding int                      `json:"fences_outstanding"`
	ByCommand         map[string]CommandStatus `json:"by_command"` // those that came at least once
	Exports           uint64                   `json:"exports"`
	Imports           uint64                   `json:"imports"` // buffers imported into the display
	ImportsLive       int64                    `json:"imports_live"`
	CopyWaits         uint64                   `json:"copy_waits"`
	PaceCaps          uint64                   `json:"pace_caps"`
	Reconnects        uint64                   `json:"reconnects"`
	FlushToCommit     Latency                  `json:"flush_to_commit_us"`
	CursorBytes       uint64                   `json:"cursor_bytes_copied"`
	Window            WindowStatus             `json:"window"`
	Counts            Counts                   `json:"counts"`
	Apps              *AppsStatus              `json:"apps,omitempty"`    // nil without --apps
	Windows           []proxy.WindowStats      `json:"windows,omitempty"` // of the guest's programs
	Vtest             *VtestStatus             `json:"vtest,omitempty"`   // nil without --vtest
	Contexts          []ContextStatus          `json:"contexts"`
	Scanouts          []ScanoutStatus          `json:"scanouts"`
	Resources         []ResourceStatus         `json:"resources"`
}

// Counts are the sizes of the tables.
type Counts struct {
	Resources map[string]int `json:"resources"` // by kind
	Contexts  int            `json:"contexts"`
	Scanouts  int            `json:"scanouts"` // that show something
}

// WindowStatus is the host-visible window.
type WindowStatus struct {
	Size       uint64 `json:"size"`       // bytes
	Used       uint64 `json:"used"`       // bytes
	Placements int    `json:"placements"` // mapped blobs
	Limit      int    `json:"limit"`      // of placements
}

// RendererStatus says who renders.
type RendererStatus struct {
	Library      string   `json:"library"`
	Node         string   `json:"node"`
	GL           bool     `json:"gl"`
	DMABufExport bool     `json:"dmabuf_export"`
	Capsets      []uint32 `json:"capsets"`
	// What the renderer holds for the guest now.
	Contexts      int `json:"contexts"`
	Resources     int `json:"resources"`
	FencesPending int `json:"fences_pending"`
}

// ContextStatus is a row of the context table.
type ContextStatus struct {
	ID      uint32 `json:"id"`
	Name    string `json:"name"`
	Submits uint64 `json:"submits"` // SUBMIT_3D
}

// CommandStatus counts one type of command.
type CommandStatus struct {
	Served uint64 `json:"served"`
	Failed uint64 `json:"failed"` // of these
}

// ScanoutStatus is a head that shows something.
type ScanoutStatus struct {
	Head     int          `json:"head"`
	Resource uint32       `json:"resource"`
	Source   display.Rect `json:"source"`
	Tier     string       `json:"tier"`
}

// ResourceStatus is a row of the resource table.
type ResourceStatus struct {
	ID       uint32   `json:"id"`
	Kind     string   `json:"kind"`
	Format   string   `json:"format"`
	Width    uint32   `json:"width"`
	Height   uint32   `json:"height"`
	Backing  uint64   `json:"backing"` // bytes of guest memory
	Contexts []uint32 `json:"contexts"`
	Buffer   string   `json:"buffer,omitempty"` // what is exported, made once
	Holders  int      `json:"holders"`          // references to that buffer
	Tier     string   `json:"tier,omitempty"`
	UUID     string   `json:"uuid,omitempty"`
}

// Status describes the device now. It visits the render thread, so it must not
// be called there; table says whether to list resources and contexts.
func (d *Device) Status(table bool) Status {
	var s Status
	d.cfg.Loop.Call(func() { s = d.status(table) })
	return s
}

func (d *Device) status(table bool) Status {
	st := d.sink.Stats()
	s := Status{
		Display:   d.sink.Name(),
		Connected: d.mem != nil,
		Renderer:  RendererStatus{Library: d.info.Library, Node: d.info.Node, GL: d.info.GL, DMABufExport: d.info.DMABufExport},
		Frames: Frames{
			DMABuf: st.FramesDMABuf.Load(), Shm: st.FramesShm.Load(), Skipped: st.FramesSkipped.Load(),
		},
		BytesCopied: d.meter.Bytes() + st.BytesCopied.Load(),
		Commands:    d.stats.Commands.Load(), Errors: d.stats.Errors.Load(), RingErrors: d.stats.RingErrors.Load(),
		Submits: d.stats.Submits.Load(), Flushes: d.stats.Flushes.Load(), Fences: d.stats.Fences.Load(),
		Exports: d.stats.Exports.Load(), Imports: st.Imports.Load(), ImportsLive: st.ImportsLive.Load(),
		CopyWaits: d.stats.CopyWaits.Load(), PaceCaps: d.stats.PaceCaps.Load(), Reconnects: st.Reconnects.Load(),
		FlushToCommit: Latency{P50: st.Latency.Quantile(0.5), P99: st.Latency.Quantile(0.99), Count: st.Latency.Count(),
			Distribution: st.Latency.Distribution()},
	}
	held := d.rend.Stats()
	s.Renderer.Contexts, s.Renderer.Resources, s.Renderer.FencesPending = held.Contexts, held.Resources, held.FencesPending
	s.Tiers = map[string]uint64{}
	for t := tierDMABuf; t < numTiers; t++ {
		s.Tiers[t.String()] = d.stats.Tiers[t].Load()
	}
	s.CursorBytes = d.cursorMeter.Bytes()
	s.Window = WindowStatus{Size: d.window.size, Used: d.window.used(), Placements: d.window.count(), Limit: maxPlacements}
	s.Counts = Counts{Resources: map[string]int{}, Contexts: len(d.contexts)}
	for _, k := range []resourceKind{kind2D, kind3D, kindBlob} {
		s.Counts.Resources[k.String()] = 0
	}
	for _, r := range d.resources {
		s.Counts.Resources[r.kind.String()]++
	}
	for h := range d.scanouts {
		if d.scanouts[h].pic != nil {
			s.Counts.Scanouts++
		}
	}
	s.FencesOutstanding = d.fences.len()
	for _, t := range d.rings {
		s.FencesOutstanding += t.len()
	}
	s.ByCommand = map[string]CommandStatus{}
	for i, c := range &d.stats.byType {
		if c.served > 0 {
			s.ByCommand[virtiogpu.Commands[i].Name] = CommandStatus{c.served, c.failed}
		}
	}
	for _, c := range d.capsets {
		s.Renderer.Capsets = append(s.Renderer.Capsets, c.ID)
	}
	if !table {
		return s
	}
	for _, c := range d.contexts {
		s.Contexts = append(s.Contexts, ContextStatus{c.id, c.name, c.submitted})
	}
	sort.Slice(s.Contexts, func(i, j int) bool { return s.Contexts[i].ID < s.Contexts[j].ID })
	for h := range d.scanouts {
		if o := &d.scanouts[h]; o.pic != nil {
			s.Scanouts = append(s.Scanouts, ScanoutStatus{h, o.pic.res.id, o.rect, o.pic.tier.String()})
		}
	}
	for _, r := range d.resources {
		s.Resources = append(s.Resources, r.status())
	}
	sort.Slice(s.Resources, func(i, j int) bool { return s.Resources[i].ID < s.Resources[j].ID })
	return s
}

func (r *resource) status() ResourceStatus {
	s := ResourceStatus{
		ID: r.id, Kind: r.kind.String(), Format: fmt.Sprintf("virgl %d", r.args.Format),
		Width: r.args.Width, Height: r.args.Height, Contexts: append([]uint32(nil), r.ctxs...),
	}
	if r.fourcc != 0 {
		s.Format = r.fourcc.String()
	}
	if r.backing != nil {
		s.Backing = r.backing.Size
	}
	for _, p := range r.pics {
		s.Tier = p.tier.String()
		if p.buf != nil {
			s.Buffer, s.Holders = p.buf.String(), p.buf.References()
		}
	}
	if r.hasUUID {
		s.UUID = fmt.Sprintf("%x-%x-%x-%x-%x", r.uuid[:4], r.uuid[4:6], r.uuid[6:8], r.uuid[8:10], r.uuid[10:])
	}
	return s
}
