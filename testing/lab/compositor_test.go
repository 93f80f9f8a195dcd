package lab_test

import (
	"context"
	"image"
	"image/color"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// colours counts the different colours of a picture, up to 256.
func colours(img image.Image) int {
	seen := map[color.Color]bool{}
	b := img.Bounds()
	for y := b.Min.Y; y < b.Max.Y && len(seen) < 256; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			seen[img.At(x, y)] = true
		}
	}
	return len(seen)
}

// shootClient runs a client until the compositor shows something other than one
// flat colour.
func shootClient(t *testing.T, c *lab.Compositor, argv ...string) image.Image {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client := c.Client(ctx, argv...)
	release, err := lab.Start(client)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	defer func() { cancel(); _ = client.Wait() }()
	for {
		img, err := c.Screenshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if colours(img) > 8 {
			return img
		}
	}
}

func TestCompositorsShowAClient(t *testing.T) {
	for _, renderer := range []string{"pixman", "gl"} {
		t.Run("weston "+renderer, func(t *testing.T) {
			c := labtest.Weston(t, lab.WestonOptions{Renderer: renderer, W: 320, H: 200})
			if img := shootClient(t, c, "weston-simple-egl"); img.Bounds().Size() != image.Pt(320, 200) {
				t.Errorf("screenshot is %v, want 320x200", img.Bounds())
			}
		})
	}
	t.Run("sway", func(t *testing.T) {
		c := labtest.Sway(t, lab.SwayOptions{W: 320, H: 200})
		if img := shootClient(t, c, "weston-simple-shm"); img.Bounds().Size() != image.Pt(320, 200) {
			t.Errorf("screenshot is %v, want 320x200", img.Bounds())
		}
	})
}

func TestXvfbScreenshot(t *testing.T) {
	x := labtest.Xvfb(t, 640, 480)
	img, err := x.Screenshot()
	if err != nil {
		t.Fatal(err)
	}
	if img.Bounds().Size() != image.Pt(640, 480) || colours(img) != 1 {
		t.Errorf("an empty screen is %v with %d colours", img.Bounds(), colours(img))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client := labtest.Root(t).Command(ctx, lab.CommandOptions{Env: x.Env()}, "glxgears")
	release, err := lab.Start(client)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	defer func() { cancel(); _ = client.Wait() }()
	for colours(img) < 3 {
		if ctx.Err() != nil {
			t.Fatal("glxgears drew nothing")
		}
		time.Sleep(50 * time.Millisecond)
		if img, err = x.Screenshot(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCompositorFailureSaysWhy(t *testing.T) {
	_, err := labtest.Root(t).Weston(t.Context(), lab.WestonOptions{Args: []string{"--no-such-flag"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-flag") || !strings.Contains(err.Error(), "unhandled option") {
		t.Errorf("error does not carry the command and weston's message: %v", err)
	}
}

func TestCommandDiesWithItsChildren(t *testing.T) {
	root := labtest.Root(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	marker := t.TempDir() + "/alive"
	cmd := root.Command(ctx, lab.CommandOptions{}, "bash", "-c",
		`(while :; do date +%N >`+marker+`; sleep 0.02; done) & wait`)
	release, err := lab.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	for range 500 {
		if _, err := os.Stat(marker); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if err := cmd.Wait(); err == nil {
		t.Error("Wait after cancel returned nil")
	}
	time.Sleep(100 * time.Millisecond)
	before, err := os.ReadFile(marker)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	if after, _ := os.ReadFile(marker); string(after) != string(before) {
		t.Error("a child of the killed command still runs")
	}
}

func TestCommandEnvironment(t *testing.T) {
	root := labtest.Root(t)
	t.Setenv("SECRET_OF_THE_CALLER", "x")
	out, err := root.Command(t.Context(), lab.CommandOptions{Env: []string{"A=b=c d"}},
		"bash", "-c", `echo "$A|$SECRET_OF_THE_CALLER|$PWD"; touch /usr/x 2>&1; . /etc/os-release; echo $VERSION_CODENAME`).CombinedOutput()
	if err != nil {
		t.Fatal(err, string(out))
	}
	wd, _ := os.Getwd()
	want := "b=c d||" + wd + "\ntouch: cannot touch '/usr/x': Read-only file system\ntrixie\n"
	if string(out) != want {
		t.Errorf("got %q, want %q", out, want)
	}
	err = root.Command(t.Context(), lab.CommandOptions{}, "bash", "-c", "exit 7").Run()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 7 {
		t.Errorf("exit code: %v, want 7", err)
	}
}
