package broker

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
)

// Counters count what the device did. They may be read from any goroutine.
type Counters struct {
	Commands   atomic.Uint64           // commands served on both queues
	Errors     atomic.Uint64           // of these, answered with RESP_ERR_*
	RingErrors atomic.Uint64           // chains and ring indices that broke the rules
	Submits    atomic.Uint64           // SUBMIT_3D
	Flushes    atomic.Uint64           // RESOURCE_FLUSH of something that a scanout shows
	Fences     atomic.Uint64           // renderer fences created
	Tiers      [numTiers]atomic.Uint64 // frames by tier
	Exports    atomic.Uint64           // textures exported as dma-buf
	PaceCaps   atomic.Uint64           // flushes that the display did not show in time
	CopyWaits  atomic.Uint64           // frames that waited for the display to free a buffer

	// byType counts by virtiogpu.Type.Index. Only the render thread touches it, so it
	// costs the queues nothing to speak of.
	byType [virtiogpu.NumCommands]commandCount
}

type commandCount struct{ served, failed uint64 }

// countCommand counts a served command by its type, if it has one.
func (c *Counters) countCommand(t virtiogpu.Type) {
	c.Commands.Add(1)
	if i := t.Index(); i >= 0 {
		c.byType[i].served++
	}
}

// countError counts one that was answered with an error.
func (c *Counters) countError(t virtiogpu.Type) {
	c.Errors.Add(1)
	if i := t.Index(); i >= 0 {
		c.byType[i].failed++
	}
}

// logLimit keeps a misbehaving guest from filling the log: a burst is written,
// then one line a second that says how many were left out. Render thread only.
type logLimit struct {
	since   time.Time
	written int
	dropped int
}

const logBurst = 20

func (l *logLimit) warn(log *zap.Logger, msg string, fields ...zap.Field) {
	now := time.Now()
	if now.Sub(l.since) > time.Second {
		if l.dropped > 0 {
			log.Warn("more of the same were left out of the log", zap.Int("lines", l.dropped))
		}
		l.since, l.written, l.dropped = now, 0, 0
	}
	if l.written >= logBurst {
		l.dropped++
		return
	}
	l.written++
	log.Warn(msg, fields...)
}
