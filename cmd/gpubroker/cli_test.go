package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
	"github.com/gpubroker/gpubroker/testing/lab"
)

// TestMain is gpubroker itself when a test runs its own binary as one.
func TestMain(m *testing.M) {
	if os.Getenv("GPUBROKER_TEST_MAIN") == "1" {
		tryAll()
		main()
	}
	fdtest.Main(m)
}

// program is a command that runs gpubroker, without a compositor around.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = []string{"GPUBROKER_TEST_MAIN=1", "XDG_RUNTIME_DIR=" + t.TempDir(), "HOME=" + t.TempDir(), "LIBGL_ALWAYS_SOFTWARE=1"}
	return cmd
}

// TestWrongOptions: a command line that makes no sense is refused at once with code
// 2, with the option's name, its value and what it should be.
func TestWrongOptions(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "s")
	for _, c := range []struct {
		args string
		want string
	}{
		{"frobnicate", `unexpected argument "frobnicate"`},
		{"serve extra --socket-path " + sock, `unexpected argument "extra"`},
		{"version now", `unexpected argument "now"`},
		{"--no-such-option", "unknown flag: --no-such-option"},
		{"serve --no-such-option", "unknown flag: --no-such-option"},
		{"serve", "want either --socket-path PATH or --fd N"},
		{"serve --socket-path " + sock + " --fd 3", "want either --socket-path PATH or --fd N"},
		{"serve --vtest " + sock + " --display wayland", "--display wayland is for a guest"},
		{"serve --vtest " + sock + " --input-socket i", "--input-socket is for a guest"},
		{"serve --vtest " + sock + " --apps", "--apps is for a guest"},
		{"serve --vtest " + sock + " --supervise", "--supervise needs a guest"},
		{"serve --vtest " + sock + " --sandbox", "--sandbox needs a guest"},
		{"serve --socket-path " + sock + " --sandbox --supervise=false", "leave out --supervise=false"},
		{"--fd three", `invalid argument "three" for "-f, --fd"`},
		{"--socket-path " + sock + " --virgl=maybe", `--virgl "maybe": want on, off or auto`},
		{"serve --socket-path " + sock + " --display tv", `--display "tv": want wayland, qemu, headless, none or auto`},
		{"serve --socket-path " + sock + " --display none --heads 2", "--heads 2: there are none with --display none"},
		{"serve --socket-path " + sock + " --policy p.toml", "--policy needs --apps"},
		{"serve --socket-path " + sock + " --apps-display wayland-1", "--apps-display needs --apps"},
		{"serve --socket-path " + sock + " --vm-name work", "--vm-name needs --apps"},
		{"serve --socket-path " + sock + " --import-socket i", "--import-socket needs --apps"},
		{"serve --socket-path " + sock + " --apps-socket i", "--apps-socket needs --apps"},
		{"serve --socket-path " + sock + " --vsock 5", "--vsock needs --apps"},
		{"serve --socket-path " + sock + " --serial i", "--serial needs --apps"},
		{"serve --socket-path " + sock + " --apps --vsock 1:2:3", `--vsock "1:2:3": bad port`},
		{"serve --socket-path " + sock + " --apps --vm-name " + strings.Repeat("x", 65), "--vm-name"},
		{"serve --socket-path " + sock + " --limit resources=0", `--limit "resources=0": want a name and a number`},
		{"serve --socket-path " + sock + " --limit bytes=1G,textures=5", `--limit "textures=5": there is resources`},
		{"serve --socket-path " + sock + " --record f --record-limit 1K", `--record-limit "1K": want a size from 64K on`},
		{"serve --vtest " + sock + " --record f", "--record is for a guest"},
		{"serve --socket-path " + sock + " --size 640", `--size "640": want WIDTHxHEIGHT`},
		{"serve --socket-path " + sock + " --size 640x480x3", `--size "640x480x3"`},
		{"serve --socket-path " + sock + " --size 10x10", `--size "10x10"`},
		{"serve --socket-path " + sock + " --heads 0", "--heads 0: want 1 to 16"},
		{"serve --socket-path " + sock + " --heads 17", "--heads 17: want 1 to 16"},
		{"serve --socket-path " + sock + " --log-level loud", `--log-level "loud"`},
		{"serve --socket-path " + sock + " --log-format xml", `--log-format "xml"`},
	} {
		t.Run(c.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), strings.Fields(c.args), &stdout, &stderr); code != exitUsage {
				t.Errorf("code %d, want %d", code, exitUsage)
			}
			if !strings.Contains(stderr.String(), c.want) || !strings.Contains(stderr.String(), "--help") {
				t.Errorf("message %q, want one with %q and --help", stderr.String(), c.want)
			}
			if stdout.Len() > 0 {
				t.Errorf("wrote %q to the standard output", stdout.String())
			}
			if _, err := os.Lstat(sock); err == nil {
				t.Error("the socket was made")
			}
		})
	}
}

// TestEarlyFailure: what was asked for and cannot be had ends the program at once
// with code 1, and leaves nothing behind (QEMU's back-end conventions).
func TestEarlyFailure(t *testing.T) {
	dir := t.TempDir()
	sock := filepath.Join(dir, "s")
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	policy := filepath.Join(dir, "policy.toml")
	if err := os.WriteFile(policy, []byte("clipbord = false\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		want string
	}{
		{"--socket-path " + sock + " --virgl --render-node=/nonexistent", "start 3D renderer"},
		{"serve --virgl=off --vtest " + sock, "vtest clients need 3D"},
		{"serve --virgl=on --display headless --render-node /nonexistent --socket-path " + sock, "start 3D renderer"},
		{"serve --virgl=off --display wayland --wayland-display " + dir + "/none --socket-path " + sock, "no Wayland compositor"},
		{"serve --virgl=off --display headless --socket-path " + dir + "/none/s", "no such file or directory"},
		{"serve --virgl=off --display headless --socket-path " + file, "is not a socket"},
		{"serve --virgl=off --display headless --control " + file + " --socket-path " + sock, "is not a socket"},
		{"serve --virgl=off --display headless --fd 1000", "descriptor 1000"},
		{"serve --virgl=off --display none --apps --policy " + dir + "/none --socket-path " + sock, "no such file or directory"},
		{"serve --virgl=off --display none --apps --policy " + policy + " --socket-path " + sock, `unknown key "clipbord"`},
		{"serve --virgl=off --display none --apps --import-socket " + file + " --socket-path " + sock, "is not a socket"},
	} {
		t.Run(c.args, func(t *testing.T) {
			cmd := program(t, strings.Fields(c.args)...)
			start := time.Now()
			out, err := cmd.CombinedOutput()
			if code := cmd.ProcessState.ExitCode(); code != exitFailed {
				t.Errorf("code %d (%v), want %d\n%s", code, err, exitFailed, out)
			}
			if !strings.Contains(string(out), c.want) {
				t.Errorf("message has no %q:\n%s", c.want, out)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("ended after %v", took)
			}
			if _, err := os.Lstat(sock); err == nil {
				t.Error("the socket is left")
			}
		})
	}
}

// TestPrintCapabilities: libvirt runs this to choose a back-end (QEMU's
// docs/interop/vhost-user.json).
func TestPrintCapabilities(t *testing.T) {
	want := "virgl"
	if nodes, err := filepath.Glob("/dev/dri/renderD*"); err != nil || len(nodes) > 0 {
		want = "render-node virgl"
	}
	for _, arg := range []string{"--print-capabilities", "-c"} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), []string{arg}, &stdout, &stderr); code != exitOK || stderr.Len() > 0 {
			t.Errorf("%s: code %d, %s", arg, code, &stderr)
		}
		var caps struct {
			Type     string   `json:"type"`
			Features []string `json:"features"`
		}
		dec := json.NewDecoder(&stdout)
		dec.DisallowUnknownFields()
		if err := dec.Decode(&caps); err != nil {
			t.Fatal(err)
		}
		if caps.Type != "gpu" || strings.Join(caps.Features, " ") != want {
			t.Errorf("%s: %+v, want features %s", arg, caps, want)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", "Usage:"},
		{"--help", "--socket-path"},
		{"serve --help", "--display"},
		{"version", "gpubroker "},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), strings.Fields(c.args), &stdout, &stderr); code != exitOK || !strings.Contains(stdout.String(), c.want) {
			t.Errorf("%q: code %d, output %q, %q", c.args, code, &stdout, &stderr)
		}
	}
}

// TestFD starts the program as libvirt does: a connected socket as descriptor, no
// command. It ends by itself, well, when QEMU leaves.
func TestFD(t *testing.T) {
	ours, theirs, err := vhostusertest.Pair()
	if err != nil {
		t.Fatal(err)
	}
	cmd := program(t, "--fd=3")
	file := os.NewFile(uintptr(theirs.Disown()), "socket")
	cmd.ExtraFiles = []*os.File{file}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
	talk(t, ours, false)
	if err := cmd.Wait(); err != nil {
		t.Errorf("after QEMU left: %v\n%s", err, &log)
	}
	if !strings.Contains(log.String(), "summary") {
		t.Errorf("no summary in the log:\n%s", &log)
	}
}

// TestSocketPath starts the program as QEMU's conventions say, without a command:
// it listens, serves one QEMU after the other, and ends well on SIGTERM.
func TestSocketPath(t *testing.T) {
	for _, virgl := range []bool{false, true} {
		dir := t.TempDir()
		sock, control := filepath.Join(dir, "s"), filepath.Join(dir, "c")
		args := []string{"-s", sock, "--control", control}
		if virgl {
			args = append(args, "--virgl")
		}
		cmd := program(t, args...)
		var log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &log, &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		end := time.Now().Add(30 * time.Second)
		for {
			if lab.Listening(control) {
				break
			}
			if time.Now().After(end) {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				t.Fatalf("it does not listen:\n%s", &log)
			}
			time.Sleep(10 * time.Millisecond)
		}
		for range 2 {
			qemu, err := vhostusertest.Dial(sock)
			if err != nil {
				t.Fatal(err)
			}
			talk(t, qemu, virgl)
		}
		st, err := broker.ReadStatus(control)
		if err != nil || st.Commands < 2 || st.Errors > 0 || st.Renderer.GL != virgl {
			t.Errorf("status: %v, %d commands, %d errors, GL %v", err, st.Commands, st.Errors, st.Renderer.GL)
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("after SIGTERM: %v\n%s", err, &log)
		}
		for _, path := range []string{sock, control} {
			if _, err := os.Lstat(path); err == nil {
				t.Errorf("%s is left", path)
			}
		}
	}
}

// talk is a QEMU with a guest that asks for its display and leaves.
func talk(t *testing.T, qemu *dmabuf.FD, virgl bool) {
	t.Helper()
	g, err := fakeguest.New(qemu, fakeguest.Config{Profile: vhostusertest.QEMU11A})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Quit()
	if got := g.FE.Offered()&(1<<virtiogpu.FeatureVirgl) != 0; got != virgl {
		t.Errorf("virgl offered: %v, want %v", got, virgl)
	}
	if err := g.Boot(); err != nil {
		t.Fatal(err)
	}
	resp := make([]byte, 512)
	n, err := g.Do((&virtiogpu.CtrlHdr{Type: virtiogpu.CmdGetDisplayInfo}).Append(nil), resp)
	if err != nil {
		t.Fatal(err)
	}
	var info virtiogpu.DisplayInfo
	if err := info.Decode(resp[:n]); err != nil {
		t.Fatal(err)
	}
	if m := info.Modes[0]; m.Enabled == 0 || m.R.Width != 1280 || m.R.Height != 800 {
		t.Errorf("display info %+v, want 1280x800", m)
	}
}
