package virpipe

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/gpubroker/gpubroker/testing/lab"
)

// Scene is what glmark2 says of one benchmark.
type Scene struct {
	Name string  `json:"name"`
	FPS  float64 `json:"fps"`
}

// resultLine is a scene's result, "[build] use-vbo=true: FPS: 531 FrameTime: 1.884 ms".
var resultLine = regexp.MustCompile(`^(\[\S+\].*?):? *FPS: (\d+) FrameTime: ([0-9.]+) ms`)

// ParseGlmark reads glmark2's output.
func ParseGlmark(out string) ([]Scene, error) {
	var scenes []Scene
	for line := range strings.Lines(out) {
		m := resultLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		ms, err := strconv.ParseFloat(m[3], 64)
		if err != nil || ms <= 0 {
			return nil, fmt.Errorf("glmark2: line %q has no frame time", line)
		}
		scenes = append(scenes, Scene{Name: strings.TrimSuffix(m[1], ":"), FPS: 1000 / ms}) // finer than FPS
	}
	if len(scenes) == 0 {
		return nil, fmt.Errorf("glmark2 measured nothing: %s", out)
	}
	return scenes, nil
}

// drawnLine is what gldraw says last.
var drawnLine = regexp.MustCompile(`(?m)^the first after ([0-9.]+) ms, then ([0-9.]+) a second$`)

// Gldraw runs testing/cmd/gldraw, which stands at program. It returns how often a second it
// would start and have its first frame, and its frames a second from there.
func Gldraw(ctx context.Context, root *lab.Root, s *Server, program string, frames int) (starts, fps float64, err error) {
	out, err := s.Command(ctx, root, nil, []string{filepath.Dir(program)}, program, "-frames", strconv.Itoa(frames)).CombinedOutput()
	if err != nil {
		return 0, 0, fmt.Errorf("gldraw on %s: %w\n%s", s.Name, err, out)
	}
	m := drawnLine.FindSubmatch(out)
	if virgl := strings.Contains(string(out), "GL_RENDERER: virgl"); m == nil || virgl == (s.Socket == "") {
		return 0, 0, fmt.Errorf("gldraw on %s: %s", s.Name, out)
	}
	first, err := strconv.ParseFloat(string(m[1]), 64)
	if err == nil {
		fps, err = strconv.ParseFloat(string(m[2]), 64)
	}
	return 1000 / first, fps, err
}

// BuildGldraw compiles it to the file out. It runs in the module's folder or below.
func BuildGldraw(ctx context.Context, out string) error {
	return lab.Build(ctx, "github.com/gpubroker/gpubroker/testing/cmd/gldraw", out)
}

// Glmark runs glmark2 in a compositor.
func Glmark(ctx context.Context, root *lab.Root, s *Server, c *lab.Compositor, args ...string) (string, error) {
	cmd := s.Command(ctx, root, c.Env(), []string{c.RuntimeDir}, append([]string{"glmark2-es2-wayland"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("glmark2 on %s: %w\n%s", s.Name, err, out)
	}
	return string(out), nil
}
