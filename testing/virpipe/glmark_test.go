package virpipe

import "testing"

func TestParseGlmark(t *testing.T) {
	const out = `=======================================================
    GL_RENDERER:    virgl (llvmpipe)
=======================================================
[build] use-vbo=false: FPS: 531 FrameTime: 2.000 ms
[texture] <default>: FPS: 99 FrameTime: 10.000 ms
[effect2d] kernel=0,1,0;1,-4,1;0,1,0;: FPS: 20 FrameTime: 50.000 ms
=======================================================
                                  glmark2 Score: 300
`
	got, err := ParseGlmark(out)
	want := []Scene{{"[build] use-vbo=false", 500}, {"[texture] <default>", 100}, {"[effect2d] kernel=0,1,0;1,-4,1;0,1,0;", 20}}
	if err != nil || len(got) != len(want) {
		t.Fatalf("%v, %v", got, err)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
	if _, err := ParseGlmark("Error: main: Could not initialize canvas"); err == nil {
		t.Error("no result is no error")
	}
}
