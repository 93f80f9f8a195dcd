package broker

import (
	"strconv"

	"github.com/gpubroker/gpubroker/broker/metrics"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
)

// snapshot is the status as package metrics shows it. Any goroutine but the render
// thread.
func (s *Server) snapshot() metrics.Snapshot {
	st := s.Status(false)
	out := metrics.Snapshot{
		Version: st.Version, Renderer: st.Renderer.Library, Node: st.Renderer.Node, Display: st.Display, Connected: st.Connected,
		Frames: st.Tiers, FramesSkipped: st.Frames.Skipped, CopiedFrames: st.BytesCopied, CopiedCursors: st.CursorBytes,
		RingErrors: st.RingErrors, Submits: st.Submits, Flushes: st.Flushes, Fences: st.Fences, Exports: st.Exports,
		Imports: st.Imports, CopyWaits: st.CopyWaits, PaceCaps: st.PaceCaps, Reconnects: st.Reconnects,
		FencesOutstanding: st.FencesOutstanding, ImportsLive: st.ImportsLive, Resources: st.Counts.Resources,
		Contexts: st.Counts.Contexts, Scanouts: st.Counts.Scanouts,
		WindowSize: st.Window.Size, WindowUsed: st.Window.Used, Mappings: st.Window.Placements, MappingsLimit: st.Window.Limit,
		FlushToCommit: st.FlushToCommit.Distribution, Commands: map[string]metrics.Command{},
	}
	if h := st.Worker; h != nil {
		out.Supervised, out.WorkerDeaths, out.Quarantine = true, h.Restarts, h.Quarantine
		if d := h.Last; d != nil {
			out.LastDeath = metrics.Death{Cause: d.Cause, Context: strconv.FormatUint(uint64(d.Context), 10), Name: d.Name}
			if d.Command != 0 {
				out.LastDeath.Command = virtiogpu.Type(d.Command).String()
			}
		}
	}
	for name, c := range st.ByCommand {
		out.Commands[name] = metrics.Command{Served: c.Served, Failed: c.Failed}
	}
	if v := st.Vtest; v != nil {
		out.Vtest = &metrics.Vtest{Clients: len(v.Clients), Resources: v.Resources, Bytes: v.Bytes, Total: v.Total, Ended: v.Ended, Submits: v.Submits}
	}
	return out
}
