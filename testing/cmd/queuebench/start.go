package main

import (
	"context"
	"time"

	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
)

// connect makes the guest of a back-end that was started, and its display.
func connect(p *process, sock *dmabuf.FD) (*machine, error) {
	g, err := fakeguest.New(sock, fakeguest.Config{Profile: profile, RAMSize: ramSize})
	if err != nil {
		return nil, err
	}
	m := &machine{Guest: g, proc: p}
	if err := g.Boot(); err != nil {
		g.Quit()
		return nil, err
	}
	fd := g.FE.TakeDisplay()
	if !fd.Valid() {
		g.Quit()
		return nil, errNoDisplay
	}
	if p.name == ours || p.name == theirs {
		m.disp = show(fd)
	} else {
		_ = fd.Close() // nobody is there
	}
	return m, nil
}

// maxStarts bounds the rounds: a renderer's start takes its time.
const maxStarts = 9

// measureStart takes the time from a process' start until it answers, and its memory then.
func measureStart(ctx context.Context, l lineup, o options, rep *Report) error {
	names := []string{ours, theirs, withGL, nothing}
	for round := range min(o.rounds, maxStarts) {
		for i := range names {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			name := names[(round+i)%len(names)]
			if err := startOnce(l, name, rep); err != nil {
				return err
			}
		}
	}
	return nil
}

func startOnce(l lineup, name string, rep *Report) error {
	begun := time.Now()
	if name == nothing {
		p, err := l.spawn(name, nil)
		if err != nil {
			return err
		}
		<-p.done
		p.kill()
		rep.add("start until the features are told", "ms", name, millis(time.Since(begun)))
		return nil
	}
	p, sock, err := l.dial(name)
	if err != nil {
		return err
	}
	// New returns when the features and all else that QEMU asks at its start are answered.
	g, err := fakeguest.New(sock, fakeguest.Config{Profile: profile, RAMSize: 16 << 20})
	if err != nil {
		err = p.explain(err)
		p.stop()
		return err
	}
	told := time.Since(begun)
	m := &machine{Guest: g, proc: p}
	defer m.quit()
	if err := g.Boot(); err != nil {
		return p.explain(err)
	}
	m.disp = show(g.FE.TakeDisplay())
	if err := m.do(displayInfo()); err != nil {
		return p.explain(err)
	}
	shown := time.Since(begun)
	mem, err := p.memory()
	if err != nil {
		return err
	}
	rep.add("start until the features are told", "ms", name, millis(told))
	rep.add("start until the first GET_DISPLAY_INFO", "ms", name, millis(shown))
	rep.add("resident memory after the start", "MiB", name, float64(mem.RSS)/1024)
	rep.add("… of it anonymous", "MiB", name, float64(mem.Anon)/1024)
	return nil
}

func millis(d time.Duration) float64 { return micros(d) / 1000 }
