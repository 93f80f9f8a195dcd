package proxy

import (
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
)

// The compositor's times are of the clock that wp_presentation names, usually the
// host's CLOCK_MONOTONIC. The guest is told of its own CLOCK_MONOTONIC, whatever the
// compositor's clock is.

// ahead returns what to add to the compositor's times to have the guest's, in
// nanoseconds.
func (c *client) ahead() int64 {
	d := c.guest.Dialect().ClockOffset
	if c.host.clock != unix.CLOCK_MONOTONIC {
		var mono, other unix.Timespec
		if unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono) == nil && unix.ClockGettime(int32(c.host.clock), &other) == nil {
			d += mono.Nano() - other.Nano()
		}
	}
	return d
}

const second = 1_000_000_000

// shift adds d nanoseconds to a time of three words; times before 0 become 0.
func shift(hi, lo, nsec uint32, d int64) (uint32, uint32, uint32) {
	sec := int64(uint64(hi)<<32 | uint64(lo))
	sec, ns := sec+d/second, int64(nsec)+d%second
	switch {
	case ns < 0:
		sec, ns = sec-1, ns+second
	case ns >= second:
		sec, ns = sec+1, ns-second
	}
	if sec < 0 {
		return 0, 0, 0
	}
	return uint32(uint64(sec) >> 32), uint32(sec), uint32(ns)
}

func presentationClock(c *client, m *message) error {
	proto.WpPresentation(m.obj.guest).SendClockId(&c.out, unix.CLOCK_MONOTONIC)
	return nil
}

func presented(c *client, m *message) error {
	if m.uint(2) >= second {
		return hostFault("%s: %d nanoseconds", m.name(), m.uint(2))
	}
	if c.start(m) {
		hi, lo, ns := shift(m.uint(0), m.uint(1), m.uint(2), c.ahead())
		c.out.Patch(m.at[0], hi)
		c.out.Patch(m.at[1], lo)
		c.out.Patch(m.at[2], ns)
		c.out.End()
	}
	return nil
}

func setTimestamp(c *client, m *message) error {
	if m.uint(2) >= second {
		return fault(m.obj.guest, uint32(proto.WpCommitTimerV1ErrorInvalidTimestamp), "%s: %d nanoseconds, limit %d", m.name(), m.uint(2), second-1)
	}
	c.begin(m)
	hi, lo, ns := shift(m.uint(0), m.uint(1), m.uint(2), -c.ahead())
	out := &c.conn.Out
	out.Patch(m.at[0], hi)
	out.Patch(m.at[1], lo)
	out.Patch(m.at[2], ns)
	out.End()
	return out.Err()
}
