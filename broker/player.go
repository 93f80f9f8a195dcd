package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/crossdomain"
	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/headless"
	"github.com/gpubroker/gpubroker/broker/record"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/virgl"
)

// PlayConfig says how a recording is played.
type PlayConfig struct {
	Virgl      VirglMode
	Renderer   func(virgl.Fences) (virgl.Renderer, error) // as in Config
	RenderNode string

	Speed       float64 // times as fast as it was recorded; 0: as fast as it goes
	Commands    uint64  // how many are played; 0: all
	Differences int     // how many the report lists
	Shot        bool    // make a picture of what Scanout shows last
	Scanout     uint32
	Memory      uint64 // bytes that the guest's memory may take here; 0: 4 GiB
	Log         *zap.Logger
}

// PlayReport says what came of it.
type PlayReport struct {
	Recorded record.Info `json:"recorded"`
	Renderer string      `json:"renderer"` // that played it
	GL       bool        `json:"gl"`

	Commands   uint64 `json:"commands"`   // played
	Compared   uint64 `json:"compared"`   // whose responses are known from then and now
	Different  uint64 `json:"different"`  // of these
	Unanswered uint64 `json:"unanswered"` // the recording has no answer, or it could not be given here
	Skipped    uint64 `json:"skipped"`    // of cross-domain contexts: their Wayland compositor is not there

	Differences []Difference `json:"differences"` // the first ones
	Last        *Command     `json:"last"`        // played; nil if there is none
	Truncated   bool         `json:"truncated"`   // the file ends inside a record
	End         string       `json:"end"`         // why the recording ends, if it says so
	Seconds     float64      `json:"seconds"`

	Shot      *Shot `json:"-"`
	ShotError error `json:"-"` // why there is none
}

// Command is a command of a recording.
type Command struct {
	Command  uint64 `json:"command"` // its number, from 0 on
	Offset   int64  `json:"offset"`  // where it stands in the file, unpacked
	Name     string `json:"name"`
	Context  uint32 `json:"context"`
	Answered bool   `json:"answered"` // the recording has its answer; if not, the broker may have died of it
}

// Difference is a command that was answered in another way than before.
type Difference struct {
	Command  uint64 `json:"command"` // its number, from 0 on
	Offset   int64  `json:"offset"`  // where it stands in the file, unpacked
	Name     string `json:"name"`
	Context  uint32 `json:"context"`
	Recorded string `json:"recorded"`
	Replayed string `json:"replayed"`
	Why      string `json:"why"` // what the device says about it now; empty if it did it
}

// Limits of what a recording may ask for.
const (
	maxPlayWindow = 1 << 40 // bytes of the window for blobs
	maxPlayMemory = 1 << 42 // bytes of guest-physical addresses; pages are there once they are written
	playMemory    = 4 << 30 // PlayConfig.Memory
	// playMargin is how many times the usual limits the recorded ones may be.
	playMargin = 16
)

// playWindow is how many commands may wait for their recorded answers.
const playWindow = 4096

// playing is what a device has instead of a guest while it plays a recording.
type playing struct {
	maps bool // there was a front-end that maps blobs
}

// player plays one recording.
type player struct {
	cfg     PlayConfig
	rep     *PlayReport
	loop    *Loop
	rend    virgl.Renderer
	dev     *Device
	mem     playedMemory
	pending map[uint64]played // by number
	start   time.Time
}

// played is a command that waits for its recorded answer.
type played struct {
	offset int64
	hdr    virtiogpu.CtrlHdr
	resp   virtiogpu.Type
	err    error
}

// Play plays a recording through a device of its own, without a VM and without a display,
// and compares the answers. The error is one of the file, or of what it needs here; the
// report then is about what came before. Called on any goroutine; ctx ends it early.
func Play(ctx context.Context, r *record.Reader, cfg PlayConfig) (*PlayReport, error) {
	rep := &PlayReport{Differences: []Difference{}}
	var rec record.Record
	switch err := r.Next(&rec); {
	case errors.Is(err, io.EOF):
		return rep, &record.OpError{Op: "play", Offset: -1, Err: fmt.Errorf("%w: it holds nothing", record.ErrFormat)}
	case err != nil:
		return rep, err
	}
	rep.Recorded = rec.Info
	p, err := newPlayer(&rec.Info, rep, cfg)
	if err != nil {
		return rep, err
	}
	defer p.close()
	p.start = time.Now()
	err = p.run(ctx, r, &rec)
	if cfg.Shot {
		p.shoot()
	}
	rep.Seconds = time.Since(p.start).Seconds()
	rep.Unanswered = rep.Commands - rep.Compared - rep.Skipped
	return rep, err
}

func newPlayer(info *record.Info, rep *PlayReport, cfg PlayConfig) (_ *player, err error) {
	if err := checkInfo(info); err != nil {
		return nil, &record.OpError{Op: "play", Offset: -1, Err: fmt.Errorf("%w: info: %w", record.ErrFormat, err)}
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	p := &player{cfg: cfg, rep: rep, pending: map[uint64]played{}}
	p.mem.limit = cfg.Memory
	if p.mem.limit == 0 {
		p.mem.limit = playMemory
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.loop, err = NewLoop(); err != nil {
		return nil, err
	}
	relay := &FenceRelay{}
	if p.rend, err = startRenderer(p.loop, &Config{Virgl: cfg.Virgl, Renderer: cfg.Renderer, RenderNode: cfg.RenderNode, Log: cfg.Log}, relay); err != nil {
		return nil, err
	}
	rep.Renderer, rep.GL = p.rend.Info().Library, p.rend.Info().GL
	dc := DeviceConfig{
		Loop: p.loop, Renderer: p.rend, Fences: relay, Sink: headless.New(display.Mode{Enabled: true, W: info.Width, H: info.Height}),
		Heads: info.Heads, HostMem: info.HostMem, Limits: playLimits(info.Limits), Log: cfg.Log,
	}
	if info.Apps {
		dc.Apps = &crossdomain.Channels{} // contexts can be made; nobody is behind them
	}
	p.dev = NewDevice(dc)
	return p, nil
}

func checkInfo(i *record.Info) error {
	switch {
	case i.Heads < 0 || i.Heads > display.MaxHeads:
		return fmt.Errorf("heads %d, limit %d", i.Heads, display.MaxHeads)
	case i.Width > dmabuf.MaxDimension || i.Height > dmabuf.MaxDimension:
		return fmt.Errorf("mode %dx%d, limit %dx%d", i.Width, i.Height, dmabuf.MaxDimension, dmabuf.MaxDimension)
	case i.HostMem > maxPlayWindow || i.HostMem&(i.HostMem-1) != 0:
		return fmt.Errorf("hostmem %d, want a power of two up to %d", i.HostMem, uint64(maxPlayWindow))
	case min(i.Limits.Resources, i.Limits.Owned, i.Limits.Contexts, i.Limits.Pieces) < 0:
		return fmt.Errorf("limits %+v below 0", i.Limits)
	}
	return nil
}

// playLimits are the recorded limits, as far as this machine goes.
func playLimits(l record.Limits) Limits {
	usual := Limits{}.withDefaults()
	out := Limits{Resources: l.Resources, Owned: l.Owned, Contexts: l.Contexts, Bytes: l.Bytes, Pieces: l.Pieces}.withDefaults()
	out.Resources = min(out.Resources, playMargin*usual.Resources)
	out.Owned = min(out.Owned, usual.Owned)
	out.Contexts = min(out.Contexts, playMargin*usual.Contexts)
	out.Pieces = min(out.Pieces, playMargin*usual.Pieces)
	out.Bytes = min(out.Bytes, usual.Bytes)
	return out
}

func (p *player) close() {
	if p.dev != nil {
		p.dev.Close()
		_ = p.dev.sink.Close()
	}
	if p.loop != nil {
		p.loop.Call(func() {
			p.mem.close()
			if p.rend != nil {
				_ = p.rend.Close()
			}
		})
		_ = p.loop.Close()
	}
}

// run plays records until the end, or an error.
func (p *player) run(ctx context.Context, r *record.Reader, rec *record.Record) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := r.Next(rec)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, record.ErrTruncated):
			p.rep.Truncated = true
			return nil
		case err != nil:
			return err
		}
		if rec.Kind == record.KindCommand && p.cfg.Commands > 0 && p.rep.Commands == p.cfg.Commands {
			return nil
		}
		if err := p.record(ctx, rec); err != nil {
			return &record.OpError{Op: "play", Offset: rec.Offset, Err: err}
		}
	}
}

func (p *player) record(ctx context.Context, rec *record.Record) (err error) {
	switch rec.Kind {
	case record.KindMachine:
		p.loop.Call(func() { err = p.machine(&rec.Machine) })
	case record.KindMemory:
		p.loop.Call(func() { err = p.mem.write(rec.Addr, rec.Data) })
	case record.KindBlob:
		p.loop.Call(func() { err = p.dev.playBlob(rec.ID, rec.Addr, rec.Data) })
	case record.KindCommand:
		if err := p.wait(ctx, rec.Time); err != nil {
			return err
		}
		return p.command(rec)
	case record.KindAnswer:
		p.compare(rec)
	case record.KindReset:
		if p.cfg.Shot {
			p.shoot() // nothing is left to show afterwards
		}
		p.loop.Call(p.dev.Reset)
	case record.KindEnd:
		p.rep.End = rec.Reason
	}
	return err
}

// wait waits until the time of a command has come.
func (p *player) wait(ctx context.Context, at uint64) error {
	if p.cfg.Speed <= 0 {
		return nil
	}
	left := float64(at)/p.cfg.Speed - float64(time.Since(p.start))
	if left <= 0 {
		return nil
	}
	t := time.NewTimer(time.Duration(min(left, float64(24*time.Hour))))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// machine takes guest memory and features as they are from now on. Render thread.
func (p *player) machine(m *record.Machine) error {
	if err := p.mem.set(m.Regions); err != nil {
		return err
	}
	p.dev.Attach(p.mem.guest())
	p.dev.plays.maps = m.Maps
	return p.dev.SetFeatures(m.Features)
}

func (p *player) command(rec *record.Record) (err error) {
	c := played{offset: rec.Offset}
	skipped := false
	p.loop.Call(func() {
		if p.dev.mem == nil {
			err = fmt.Errorf("%w: a command before any guest memory", record.ErrFormat)
			return
		}
		c.hdr, c.resp, skipped, c.err = p.dev.play(virtiogpu.QueueKind(rec.Queue), rec.Data, uint64(rec.Size))
		err = p.mem.check()
	})
	p.rep.Commands++
	p.rep.Last = &Command{Command: rec.Number, Offset: rec.Offset, Name: c.hdr.Type.String(), Context: c.hdr.CtxID}
	if skipped {
		p.rep.Skipped++
		return err
	}
	delete(p.pending, rec.Number-playWindow) // a file that has no answers must not fill the memory
	if c.resp != 0 {
		p.pending[rec.Number] = c
	}
	return err
}

// compare compares a recorded answer with the one given here.
func (p *player) compare(rec *record.Record) {
	if l := p.rep.Last; l != nil && l.Command == rec.Number {
		l.Answered = true
	}
	c, ok := p.pending[rec.Number]
	if !ok {
		return
	}
	delete(p.pending, rec.Number)
	p.rep.Compared++
	was := virtiogpu.Type(rec.Type)
	if was == c.resp {
		return
	}
	p.rep.Different++
	if len(p.rep.Differences) >= p.cfg.Differences {
		return
	}
	d := Difference{Command: rec.Number, Offset: c.offset, Name: c.hdr.Type.String(), Context: c.hdr.CtxID, Recorded: was.String(), Replayed: c.resp.String()}
	if c.err != nil {
		d.Why = c.err.Error()
	}
	p.rep.Differences = append(p.rep.Differences, d)
}

// shoot makes the picture, if the scanout shows something.
func (p *player) shoot() {
	s, err := NewShots(p.dev).Scanout(p.cfg.Scanout)
	switch {
	case err == nil:
		p.rep.Shot, p.rep.ShotError = s, nil
	case p.rep.Shot == nil:
		p.rep.ShotError = err
	}
}
