package waylandtest

import (
	"slices"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

func feedback(cl *client, _ *object, m wire.Message) error {
	var a proto.WpPresentationFeedbackRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	of(cl, wire.ID(a.Surface)).presented = append(of(cl, wire.ID(a.Surface)).presented, wire.ID(a.Callback))
	return nil
}

// present answers the feedback that was asked for with the configured time.
func (cl *client) present(s *surface) {
	const second = 1_000_000_000
	for _, id := range s.presented {
		at := cl.c.cfg.PresentedAt
		proto.WpPresentationFeedback(id).SendPresented(cl.out(), uint32(at/second>>32), uint32(at/second), uint32(at%second), 16_666_666, 0, 1, 0)
		cl.destroy(cl.objects[id])
	}
	s.presented = nil
}

func timestamp(cl *client, _ *object, m wire.Message) error {
	var a proto.WpCommitTimerV1SetTimestampRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	cl.c.mu.Lock()
	cl.c.times = append(cl.c.times, (int64(a.TvSecHi)<<32|int64(a.TvSecLo))*1_000_000_000+int64(a.TvNsec))
	cl.c.mu.Unlock()
	return nil
}

// Timestamps returns every wp_commit_timer_v1.set_timestamp, in nanoseconds.
func (c *Compositor) Timestamps() []int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.times)
}
