package main

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/virpipe"
)

// measurement is what one guest saw.
type measurement struct {
	renderer, version string
	fps               rates
}

// rates are frames a second by program or scene.
type rates map[string]float64

func (r rates) String() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(r)) {
		parts = append(parts, fmt.Sprintf("%s %.1f", name, r[name]))
	}
	return strings.Join(parts, ", ")
}

// scenes of glmark2: vertices, texture, a heavy fragment shader, a buffer that changes.
var scenes = []string{"build:use-vbo=true", "texture", "shading:shading=phong", "buffer:update-method=map:interleave=true"}

// glmark2 finds its device through udev, and by default draws with alpha, which
// the primary plane of virtio-gpu does not take.
const prepare = `set -e
modprobe virtio_gpu
for i in $(seq 100); do [ -e /dev/dri/card0 ] && break; sleep 0.1; done
/lib/systemd/systemd-udevd --daemon; udevadm trigger; udevadm settle
eglinfo -B -p surfaceless 2>/dev/null | sed -n 's/^OpenGL core profile \(version\|renderer\): /\1=/p'
`

// kmscube ends when its standard input can be read, so it gets one that never can. What
// it says of its rate must not wait in a buffer when it is ended.
const cube = `mkfifo /tmp/nothing; sleep 10000 > /tmp/nothing & reader=$!
timeout %d stdbuf -oL kmscube -D /dev/dri/card0 -c 1000000 < /tmp/nothing 2>&1 || true
kill $reader
`

const glmark = "cd /tmp; glmark2-es2-drm --size 800x600 --visual-config red=8:green=8:blue=8:alpha=0:buffer=24 %s 2>&1\n"

// durationOption is in each scene's name and says nothing of it.
var durationOption = regexp.MustCompile(`duration=\d+:?`)

var cubeLine = regexp.MustCompile(`Rendered (\d+) frames in ([\d.]+) sec`)

func programs(ctx context.Context, vm *lab.VM, seconds int) (m measurement, err error) {
	text, err := vm.Check(ctx, prepare)
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(text) {
		switch name, value, _ := strings.Cut(strings.TrimSpace(line), "="); name {
		case "version":
			m.version = value
		case "renderer":
			m.renderer = value
		}
	}
	if !strings.Contains(strings.ToLower(m.renderer), "virgl") {
		return m, fmt.Errorf("the guest renders with %q and not with virgl:\n%s", m.renderer, text)
	}
	if text, err = vm.Check(ctx, fmt.Sprintf(cube, seconds+2)); err != nil {
		return m, err
	}
	found := cubeLine.FindAllStringSubmatch(text, -1)
	if len(found) == 0 {
		return m, fmt.Errorf("kmscube told no rate:\n%s", text)
	}
	last := found[len(found)-1] // since the start; the patterns match numbers only
	frames, _ := strconv.ParseFloat(last[1], 64)
	took, _ := strconv.ParseFloat(last[2], 64)
	m.fps = rates{"kmscube": frames / took}

	var args strings.Builder
	for _, s := range scenes {
		fmt.Fprintf(&args, " -b %s:duration=%d", s, seconds)
	}
	if text, err = vm.Check(ctx, fmt.Sprintf(glmark, args.String())); err != nil {
		return m, err
	}
	done, err := virpipe.ParseGlmark(text)
	if err != nil {
		return m, err
	}
	for _, scene := range done {
		m.fps[strings.TrimSuffix(durationOption.ReplaceAllString(scene.Name, ""), " ")] = scene.FPS
	}
	if len(m.fps) != 1+len(scenes) {
		return m, fmt.Errorf("glmark2 did not finish its scenes:\n%s", text)
	}
	return m, nil
}
