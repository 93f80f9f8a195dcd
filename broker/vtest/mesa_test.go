package vtest_test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/gpubroker/gpubroker/testing/virpipe/gldraw"
)

// drawEnv makes the test program draw with OpenGL ES and say whether the pixels were right.
const drawEnv = "GPUBROKER_TEST_DRAW"

func drawIfAsked() {
	seed, err := strconv.Atoi(os.Getenv(drawEnv))
	if err != nil {
		return
	}
	r, err := gldraw.Draw(25, byte(seed))
	fmt.Println(r.Renderer, err)
	if err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// TestMesa: with this machine's Mesa on both sides, OpenGL ES programs draw at once, and
// each sees the right pixels.
func TestMesa(t *testing.T) {
	path, srv := serveReal(t)
	draw := func(seed int, env ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append([]string{fmt.Sprint(drawEnv, "=", seed), "LIBGL_ALWAYS_SOFTWARE=true"}, env...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := draw(1); err != nil {
		t.Fatalf("this machine's Mesa does not draw without a window: %v: %s", err, out)
	}
	if out, err := draw(1, "GALLIUM_DRIVER=virpipe", "VTEST_SOCKET_NAME="+path); err != nil && srv.Status().Total == 0 {
		first, _, _ := strings.Cut(out, "\n")
		t.Skipf("this machine's Mesa does not come to the socket; those before 23 know no VTEST_SOCKET_NAME: %v: %s", err, first)
	}
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			out, err := draw(50*i+1, "GALLIUM_DRIVER=virpipe", "VTEST_SOCKET_NAME="+path)
			if err != nil || !strings.HasPrefix(out, "virgl") {
				t.Errorf("program %d: %v\n%s", i, err, out)
			}
		})
	}
	wg.Wait()
	if st := srv.Status(); st.Total < 3 || st.Ended > 0 || st.Submits == 0 {
		t.Errorf("status %+v", st)
	}
}
