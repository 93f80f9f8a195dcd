package metrics

import (
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// patience is how long a scrape waits for the broker, whose render thread may be inside
// a driver. A scrape in Prometheus' default settings may take 10 s.
const patience = 5 * time.Second

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("gpubroker_"+name, help, labels, nil)
}

// The metrics; docs/metrics.md lists them.
var (
	descResponsive = desc("responsive", "1 if the render thread answered this scrape within 5 s; if not, the other metrics are missing.")
	descInfo       = desc("info", "What runs; always 1.", "version", "renderer", "node", "display")
	descConnected  = desc("connected", "1 while a VM is connected.")

	descFrames     = desc("frames_total", "Frames by how their pixels reached the display.", "tier")
	descSkipped    = desc("frames_skipped_total", "Frames superseded before the display took them.")
	descCopied     = desc("copied_bytes_total", "Pixel bytes copied.", "what")
	descCommands   = desc("commands_total", "Commands of the guest.", "command")
	descErrors     = desc("command_errors_total", "Commands answered with an error.", "command")
	descRingErrors = desc("ring_errors_total", "Descriptor chains and ring indices that broke the rules.")
	descSubmits    = desc("submits_total", "Command streams of contexts (SUBMIT_3D).")
	descFlushes    = desc("flushes_total", "RESOURCE_FLUSH of something that a scanout shows.")
	descFences     = desc("fences_total", "Renderer fences created.")
	descExports    = desc("exports_total", "Textures exported as dma-bufs.")
	descImports    = desc("imports_total", "Buffers imported into the display.")
	descCopyWaits  = desc("copy_waits_total", "Frames that waited for the display to free a buffer.")
	descPaceCaps   = desc("pace_caps_total", "Flushes that the display did not show in time.")
	descReconnects = desc("display_reconnects_total", "Times the compositor came back.")

	descOutstanding    = desc("fences_outstanding", "Commands whose completion waits for the renderer or the display.")
	descLive           = desc("imports", "Buffers that the display has imported now.")
	descResources      = desc("resources", "Resources of the guest by kind.", "kind")
	descContexts       = desc("contexts", "Rendering contexts of the guest.")
	descScanouts       = desc("scanouts", "Scanouts that show something.")
	descWindowSize     = desc("window_bytes", "Size of the window of host memory.")
	descWindowUsed     = desc("window_used_bytes", "Part of it that is mapped.")
	descMappings       = desc("window_mappings", "Blobs mapped in it.")
	descMapLimit       = desc("window_mappings_limit", "How many may be mapped at a time.")
	descDeaths         = desc("worker_deaths_total", "Workers that died, by what of.", "cause")
	descQuarantine     = desc("worker_quarantine", "1 if 3D is off for this VM because it killed too many workers.")
	descLastDeath      = desc("worker_last_death_info", "What the last worker that died was busy with; always 1.", "cause", "context", "name", "command")
	descVtestClients   = desc("vtest_clients", "Programs without a guest that are connected (--vtest).")
	descVtestTotal     = desc("vtest_clients_total", "Programs without a guest that have connected.")
	descVtestEnded     = desc("vtest_clients_ended_total", "Of these, ended for an error.")
	descVtestSubmits   = desc("vtest_submits_total", "Command streams of programs without a guest.")
	descVtestResources = desc("vtest_resources", "Resources of programs without a guest.")
	descVtestBytes     = desc("vtest_bytes", "Host memory behind them, about.")

	descLatency = desc("flush_to_commit_seconds", "From the guest's RESOURCE_FLUSH to the commit to the display.")
)

// collector asks a broker at each scrape.
type collector struct {
	source   func() Snapshot
	patience time.Duration

	mu      sync.Mutex
	pending chan Snapshot // guarded by mu: a question that was not answered in time
}

// Describe announces nothing: some metrics come and go with the guest.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// snapshot asks the broker and waits for a while. One that hangs is not asked again
// before it has answered, and then for something newer.
func (c *collector) snapshot() (Snapshot, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	timeout := time.NewTimer(c.patience)
	defer timeout.Stop()
	for {
		old := c.pending != nil
		if !old {
			answer := make(chan Snapshot, 1)
			c.pending = answer
			go func() { answer <- c.source() }()
		}
		select {
		case s := <-c.pending:
			c.pending = nil
			if !old {
				return s, true
			}
		case <-timeout.C:
			return Snapshot{}, false
		}
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s, ok := c.snapshot()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(descResponsive, truth(ok))
	if !ok {
		return
	}
	gauge(descInfo, 1, s.Version, s.Renderer, s.Node, s.Display)
	gauge(descConnected, truth(s.Connected))
	for tier, n := range s.Frames {
		counter(descFrames, n, tier)
	}
	counter(descSkipped, s.FramesSkipped)
	counter(descCopied, s.CopiedFrames, "frame")
	counter(descCopied, s.CopiedCursors, "cursor")
	for name, n := range s.Commands {
		counter(descCommands, n.Served, name)
		counter(descErrors, n.Failed, name)
	}
	for d, n := range map[*prometheus.Desc]uint64{
		descRingErrors: s.RingErrors, descSubmits: s.Submits, descFlushes: s.Flushes, descFences: s.Fences, descExports: s.Exports,
		descImports: s.Imports, descCopyWaits: s.CopyWaits, descPaceCaps: s.PaceCaps, descReconnects: s.Reconnects,
	} {
		counter(d, n)
	}
	for kind, n := range s.Resources {
		gauge(descResources, float64(n), kind)
	}
	for d, n := range map[*prometheus.Desc]float64{
		descOutstanding: float64(s.FencesOutstanding), descLive: float64(s.ImportsLive), descContexts: float64(s.Contexts),
		descScanouts: float64(s.Scanouts), descWindowSize: float64(s.WindowSize), descWindowUsed: float64(s.WindowUsed),
		descMappings: float64(s.Mappings), descMapLimit: float64(s.MappingsLimit),
	} {
		gauge(d, n)
	}
	if s.Supervised {
		for cause, n := range s.WorkerDeaths {
			counter(descDeaths, n, cause)
		}
		gauge(descQuarantine, truth(s.Quarantine))
		if d := s.LastDeath; d.Cause != "" {
			gauge(descLastDeath, 1, d.Cause, d.Context, strings.ToValidUTF8(d.Name, "?"), d.Command)
		}
	}
	if v := s.Vtest; v != nil {
		gauge(descVtestClients, float64(v.Clients))
		gauge(descVtestResources, float64(v.Resources))
		gauge(descVtestBytes, float64(v.Bytes))
		counter(descVtestTotal, v.Total)
		counter(descVtestEnded, v.Ended)
		counter(descVtestSubmits, v.Submits)
	}
	buckets := map[float64]uint64{}
	for _, o := range s.FlushToCommit.Below {
		buckets[float64(o.Micros)/1e6] = o.Count
	}
	out <- prometheus.MustNewConstHistogram(descLatency, s.FlushToCommit.Count, float64(s.FlushToCommit.Sum)/1e6, buckets)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
