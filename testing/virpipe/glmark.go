package virpipe

import (
	"context"
	"fmt"
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

// Glmark runs glmark2 in a compositor.
func Glmark(ctx context.Context, root *lab.Root, s *Server, c *lab.Compositor, args ...string) (string, error) {
	cmd := s.Command(ctx, root, c.Env(), []string{c.RuntimeDir}, append([]string{"glmark2-es2-wayland"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("glmark2 on %s: %w\n%s", s.Name, err, out)
	}
	return string(out), nil
}
