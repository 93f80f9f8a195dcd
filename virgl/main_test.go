package virgl

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
	"github.com/gpubroker/gpubroker/virgl/dl"
)

func TestMain(m *testing.M) {
	// Without this Mesa looks for a GPU driver first and complains on stderr.
	if os.Getenv("LIBGL_ALWAYS_SOFTWARE") == "" {
		_ = os.Setenv("LIBGL_ALWAYS_SOFTWARE", "1")
	}
	fdtest.Main(m)
}

// onThread runs f on a locked OS thread with a real renderer, closed afterwards.
func onThread(t testing.TB, onFence Fences, f func(r *renderer)) {
	t.Helper()
	var log *zap.Logger
	if testing.Verbose() {
		log = zaptest.NewLogger(t)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread dies with its GL state
		r, err := New(Config{Log: log, OnFence: onFence, CheckThread: true, RenderNode: os.Getenv("GPUBROKER_TEST_NODE")})
		if errors.Is(err, dl.ErrMissing) {
			t.Errorf("the tests need the library: %v", err)
			return
		}
		if err != nil {
			t.Error(err)
			return
		}
		defer func() {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}()
		f(r.(*renderer))
	}()
	<-done
}
