package smoke

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/ebitengine/purego"

	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
	"github.com/gpubroker/gpubroker/virgl/dl"
)

// childEnv makes the test's program a child of Run.
const childEnv = "GPUBROKER_SMOKE_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		for name, f := range badProbes {
			probes[name] = f
		}
		if err := ServeChild(context.Background(), os.Stdin); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv("LIBGL_ALWAYS_SOFTWARE") == "" {
		_ = os.Setenv("LIBGL_ALWAYS_SOFTWARE", "1")
	}
	fdtest.Main(m)
}

// badProbes end as no probe should.
var badProbes = map[string]func(context.Context, *probe){
	"good": func(_ context.Context, p *probe) {
		p.begin("good.row", "thing")
		p.found(findings{UDMABuf: true})
		p.end(Row{State: OK, Seen: "fine"})
	},
	"abort": func(_ context.Context, p *probe) { // inside a C library
		p.begin("first", "")
		p.end(Row{State: OK, Seen: "fine"})
		p.begin("second", "node")
		libc, err := dl.Open(dl.Spec{Sonames: []string{"libc.so.6"}})
		if err != nil {
			return
		}
		var abort uintptr
		if libc.Resolve([]dl.Symbol{{Name: "abort", Addr: &abort}}) == nil {
			purego.SyscallN(abort)
		}
	},
	"segv": func(_ context.Context, p *probe) { // a C function that writes to address 8
		p.begin("segv", "")
		libc, err := dl.Open(dl.Spec{Sonames: []string{"libc.so.6"}})
		if err != nil {
			return
		}
		var memset uintptr
		if libc.Resolve([]dl.Symbol{{Name: "memset", Addr: &memset}}) == nil {
			purego.SyscallN(memset, 8, 1, 64)
		}
	},
	"killed": func(_ context.Context, p *probe) {
		p.begin("killed", "")
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		time.Sleep(time.Minute)
	},
	"hang": func(_ context.Context, p *probe) {
		p.begin("hang", "")
		time.Sleep(time.Minute)
	},
	"exit": func(_ context.Context, p *probe) {
		p.begin("exit", "")
		os.Stderr.WriteString("libfoo: assertion failed\n")
		os.Exit(3)
	},
	"half": func(_ context.Context, p *probe) {
		p.begin("half", "")
		_, _ = os.NewFile(childFD, "results").WriteString(`{"row":{"name":"half","sta`)
		os.Exit(1)
	},
	"noise": func(_ context.Context, p *probe) { // a driver that prints to the standard output
		os.Stdout.WriteString("{\"row\": {\"name\": \"forged\", \"state\": \"ok\"}}\n")
		p.begin("noise", "")
		p.end(Row{State: OK, Seen: "fine"})
	},
}

// options run children of this test's program, with env added.
func options(t *testing.T, env ...string) Options {
	t.Helper()
	return Options{Version: "test", Timeout: time.Minute, Child: func(ctx context.Context) *exec.Cmd {
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = append(append(os.Environ(), childEnv+"=1"), env...)
		return cmd
	}}
}
