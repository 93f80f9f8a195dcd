package virpipe_test

import (
	"context"
	"fmt"
	"image"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/golden"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
	"github.com/gpubroker/gpubroker/testing/report"
	"github.com/gpubroker/gpubroker/testing/virpipe"
)

func TestMain(m *testing.M) { fdtest.Main(m) }

func start(t *testing.T, root *lab.Root, args ...string) *virpipe.Server {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "gpubroker")
	if err := brokerproc.Build(t.Context(), binary); err != nil {
		t.Fatal(err)
	}
	s, err := virpipe.Gpubroker(t.Context(), root, binary, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("gpubroker said:\n%s", s.Broker.Log())
		}
		if err := s.Stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return s
}

// atRest waits until the broker holds nothing for clients.
func atRest(t *testing.T, s *virpipe.Server) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		st, err := s.Broker.Status()
		if err != nil {
			t.Fatal(err)
		}
		v := st.Vtest
		if v == nil {
			t.Fatal("the status says nothing of vtest clients")
		}
		if len(v.Clients) == 0 && v.Contexts == 0 && v.Resources == 0 && v.Bytes == 0 {
			if v.Ended > 0 {
				t.Errorf("%d clients of %d were ended for an error", v.Ended, v.Total)
			}
			return
		}
		if time.Now().After(end) {
			t.Fatalf("clients left, and this did not: %+v", v)
		}
	}
}

// TestValidate: glmark2 draws its scenes and compares pixels with what it knows to be
// right. Two run at once.
func TestValidate(t *testing.T) {
	root := labtest.Root(t)
	s := start(t, root)
	weston := labtest.Weston(t, lab.WestonOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	const clients = 2
	outs := make([]string, clients)
	errs := make([]error, clients)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() { outs[i], errs[i] = virpipe.Glmark(ctx, root, s, weston, "--validate", "--size", "320x240") })
	}
	wg.Wait()
	for i, out := range outs {
		if errs[i] != nil {
			t.Error(errs[i])
			continue
		}
		if !strings.Contains(out, "GL_RENDERER:    virgl") {
			t.Errorf("another renderer:\n%s", out)
		}
		good, bad := strings.Count(out, "Validation: Success"), strings.Count(out, "Validation: Fail")
		if good < 10 || bad > 0 {
			t.Errorf("%d scenes are right and %d wrong:\n%s", good, bad, out)
		}
		t.Logf("client %d: %d scenes right, %d without a known answer", i, good, strings.Count(out, "Validation: Unknown"))
	}
	atRest(t, s)
}

// TestPictures: what X11 programs show is what they show when they draw themselves, pixel
// for pixel within a rounding; several at once.
func TestPictures(t *testing.T) {
	root := labtest.Root(t)
	s := start(t, root)
	draw := func(t *testing.T, s *virpipe.Server, argv ...string) image.Image {
		x := labtest.Xvfb(t, 320, 320)
		ctx, cancel := context.WithCancel(t.Context())
		cmd := s.Command(ctx, root, x.Env(), nil, argv...)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		release, err := lab.Start(cmd)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			cancel()
			_ = cmd.Wait()
			release()
		}()
		var last image.Image
		for end := time.Now().Add(60 * time.Second); ; time.Sleep(300 * time.Millisecond) {
			img, err := x.Screenshot()
			if err != nil {
				t.Fatal(err)
			}
			if n, drawn := report.Colours(img); n > 16 && drawn > 0.05 && last != nil && golden.Compare(img, last, golden.Tolerance{}).OK() {
				return img
			}
			last = img
			if time.Now().After(end) {
				t.Fatalf("%s drew nothing that stands still\n%s", argv[0], out.String())
			}
		}
	}
	for _, prog := range []string{"egltri_x11", "es2tri"} {
		t.Run(prog, func(t *testing.T) {
			t.Parallel()
			want := draw(t, virpipe.Direct(), prog)
			got := draw(t, s, prog)
			golden.Equal(t, fmt.Sprintf("vtest-%s", prog), got, want, golden.Tolerance{Channel: 2, Share: 0.002})
		})
	}
	t.Run("rest", func(t *testing.T) {}) // the parallel ones end before the cleanup
}

// TestDraw: programs that draw without a window at once, each in its colours, see the
// right pixels.
func TestDraw(t *testing.T) {
	root := labtest.Root(t)
	s := start(t, root)
	program := filepath.Join(t.TempDir(), "gldraw")
	if err := virpipe.BuildGldraw(t.Context(), program); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			cmd := s.Command(ctx, root, nil, []string{filepath.Dir(program)}, program, "-frames", "100", "-seed", fmt.Sprint(60*i+1))
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "GL_RENDERER: virgl") || !strings.Contains(string(out), "100 frames are right") {
				t.Errorf("program %d: %v\n%s", i, err, out)
			}
		})
	}
	wg.Wait()
	atRest(t, s)
}

// TestInfo: what the driver says of itself.
func TestInfo(t *testing.T) {
	root := labtest.Root(t)
	s := start(t, root)
	ask(t, root, s, nil, "eglinfo", "-B", "-p", "surfaceless")
	atRest(t, s)
}

// TestInfoX11: the same of programs that show something. glxinfo ends with an X error on
// virgl_test_server too (Mesa 26.1's virpipe asks for the pixels of its window, which
// glxinfo never maps), so it has to do here what it does there.
func TestInfoX11(t *testing.T) {
	root := labtest.Root(t)
	s := start(t, root)
	x := labtest.Xvfb(t, 320, 320)
	for _, argv := range [][]string{{"es2_info"}, {"eglinfo", "-B", "-p", "x11"}} {
		ask(t, root, s, x.Env(), argv...)
	}
	ref, err := virpipe.Reference(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := ref.Stop(); err != nil {
			t.Error(err)
		}
	}()
	glxinfo := func(s *virpipe.Server) (string, error) {
		out, err := s.Command(t.Context(), root, x.Env(), nil, "glxinfo", "-B").CombinedOutput()
		return string(out), err
	}
	ours, err := glxinfo(s)
	theirs, refErr := glxinfo(ref)
	if (err == nil) != (refErr == nil) || strings.Contains(ours, "virgl (") != strings.Contains(theirs, "virgl (") ||
		strings.Contains(ours, "X_GetImage") != strings.Contains(theirs, "X_GetImage") {
		t.Errorf("glxinfo: %v\n%s\non virgl_test_server: %v\n%s", err, ours, refErr, theirs)
	}
	atRest(t, s)
}

func ask(t *testing.T, root *lab.Root, s *virpipe.Server, env []string, argv ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := s.Command(ctx, root, env, nil, argv...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "virgl (") {
		t.Errorf("%v: %v\n%s", argv, err, out)
	}
}
