package broker

import "github.com/gpubroker/gpubroker/broker/metrics"

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
	for name, c := range st.ByCommand {
		out.Commands[name] = metrics.Command{Served: c.Served, Failed: c.Failed}
	}
	return out
}
