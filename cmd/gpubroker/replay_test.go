package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/confine"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
	"github.com/gpubroker/gpubroker/virgl/virglcmd"
)

// replay runs gpubroker replay in a process of its own: it makes a renderer.
func replay(t *testing.T, wantCode int, args ...string) string {
	t.Helper()
	cmd := program(t, append([]string{"replay"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != wantCode {
		t.Fatalf("replay %v: code %d, want %d\n%s%s", args, code, wantCode, &stdout, &stderr)
	}
	return stdout.String() + stderr.String()
}

// upload fills a texture with pixels of scattered guest pages.
func (s *served) upload(id, w, h uint32) {
	s.t.Helper()
	s.create3D(&virtiogpu.ResourceCreate3D{ResourceID: id, Target: virglcmd.TargetTexture2D, Format: virglcmd.FormatB8G8R8X8, Bind: virglcmd.BindRenderTarget,
		Width: w, Height: h, Depth: 1, ArraySize: 1})
	b, err := s.Pages.Scattered(uint64(w * h * 4))
	if err != nil {
		s.t.Fatal(err)
	}
	p := make([]byte, b.Size)
	for i := range p {
		p[i] = byte(i * 7 / 3)
	}
	b.WriteAt(p, 0)
	attach := (&virtiogpu.ResourceAttachBacking{ResourceID: id, NrEntries: uint32(len(b.Entries))}).Append(nil)
	for _, e := range b.Entries {
		attach = virtiogpu.MemEntry{Addr: e.Addr, Length: e.Len}.Append(attach)
	}
	s.ok(attach)
	up := (&virtiogpu.TransferHost3D{CtrlHdr: virtiogpu.CtrlHdr{CtxID: 1}, ResourceID: id, Box: virtiogpu.Box{W: w, H: h, D: 1}}).Append(nil)
	binary.LittleEndian.PutUint32(up, uint32(virtiogpu.CmdTransferToHost3D))
	s.ok(up)
}

// TestReplay: with a real renderer, what was recorded is played with the same answers and
// the same pixels; what is left of the file too.
func TestReplay(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "recording")
	s := serveProgram(t, "--virgl=on", "--record", file)
	const w, h = 72, 40
	s.ok((&virtiogpu.CtxCreate{CtrlHdr: virtiogpu.CtrlHdr{CtxID: 1}}).Append(nil))
	s.create3D(&virtiogpu.ResourceCreate3D{ResourceID: vertices, Target: virglcmd.TargetBuffer, Format: virglcmd.FormatR8, Bind: virglcmd.BindVertexBuffer,
		Width: 1024, Height: 1, Depth: 1, ArraySize: 1})
	whole := virtiogpu.Rect{Width: w, Height: h}
	compare := func(name string) {
		t.Helper()
		then, now := filepath.Join(dir, name+"-then.png"), filepath.Join(dir, name+"-now.png")
		command(t, "shot", "--control", s.control, "-o", then)
		out := replay(t, exitOK, file, "--virgl=on", "--shot", now)
		if !strings.Contains(out, " 0 different, 0 unknown, 0 skipped") || !strings.Contains(out, "72x40") {
			t.Errorf("%s: replay says\n%s", name, out)
		}
		a, err := os.ReadFile(then)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(now)
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: the replay has other pixels, %v", name, err)
		}
	}
	s.fill3D(1, w, h, 0)
	s.ok((&virtiogpu.SetScanout{ScanoutID: 0, ResourceID: 1, R: whole}).Append(nil))
	s.ok((&virtiogpu.ResourceFlush{ResourceID: 1, R: whole}).Append(nil))
	compare("drawn")
	s.upload(2, w, h)
	s.ok((&virtiogpu.SetScanout{ScanoutID: 0, ResourceID: 2, R: whole}).Append(nil))
	s.ok((&virtiogpu.ResourceFlush{ResourceID: 2, R: whole}).Append(nil))
	compare("uploaded")

	body, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(body[:len(body)-3])
	_ = z.Close()
	cut := filepath.Join(dir, "cut.gz")
	if err := os.WriteFile(cut, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := replay(t, exitOK, cut, "--virgl=on"); !strings.Contains(out, "ends inside a record") || !strings.Contains(out, "RESOURCE_FLUSH of context 0") {
		t.Errorf("a file that was cut:\n%s", out)
	}
	// Without 3D most answers are others.
	out := replay(t, replayDifferent, file, "--virgl=off", "--list", "1")
	if !strings.Contains(out, "CTX_CREATE of context 1: RESP_OK_NODATA then, RESP_ERR_UNSPEC now (") || !strings.Contains(out, "more\n") || !strings.Contains(out, "here there is none") {
		t.Errorf("without 3D:\n%s", out)
	}
	var rep broker.PlayReport
	if err := json.Unmarshal([]byte(replay(t, replayDifferent, file, "--virgl=off", "--json")), &rep); err != nil || rep.Different < 8 || len(rep.Differences) == 0 || !rep.Recorded.GL || rep.GL {
		t.Errorf("JSON: %+v, %v", rep, err)
	}
}

// TestReplayFails: a file that cannot be played has code 2 and says where and why.
func TestReplayFails(t *testing.T) {
	dir := t.TempDir()
	for name, body := range map[string]string{"png": "\x89PNG\r\n\x1a\n and more of it", "empty": "", "head": "gpubrec\n\x01\x00\x00\x00\x00\x00\x00\x00"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ args, want string }{
		{dir + "/none", "no such file or directory"},
		{dir + "/png", "at offset 0: no good recording: it begins with"},
		{dir + "/empty", "no good recording: 0 bytes, the header has 16"},
		{dir + "/head", "it holds nothing"},
		{"", "want one FILE"},
		{"a b", "want one FILE"},
		{dir + "/head --speed -1", "--speed -1"},
		{dir + "/head --memory none", `--memory "none"`},
		{dir + "/head --scanout 16", "--scanout 16: limit 15"},
		{dir + "/head --virgl=maybe", `--virgl "maybe"`},
		{dir + "/head --list -1", "--list -1"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), append([]string{"replay"}, strings.Fields(c.args)...), &stdout, &stderr); code != replayFailed || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s: code %d, %q; want %q", c.args, code, &stderr, c.want)
		}
	}
}

// TestRecordRefused: a file that cannot be recorded to ends the program at once, and is not
// touched; also below a supervisor.
func TestRecordRefused(t *testing.T) {
	dir := t.TempDir()
	used := filepath.Join(dir, "used")
	if err := os.WriteFile(used, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(dir, "s")
	for file, want := range map[string]string{
		used: "the file is not empty; it is not overwritten (8 bytes)", dir + "/no/such": "no such file or directory", dir: "is a directory", "/dev/null": "not a regular file",
	} {
		for _, more := range []string{"--supervise=false", "--supervise"} {
			cmd := program(t, "serve", "--virgl=off", "--display", "headless", "--socket-path", sock, "--record", file, more)
			out, _ := cmd.CombinedOutput()
			if code := cmd.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(string(out), want) || !strings.Contains(string(out), file) {
				t.Errorf("%s %s: code %d, want %q\n%s", more, file, code, want, out)
			}
			if _, err := os.Lstat(sock); err == nil {
				t.Errorf("%s %s: the socket was made", more, file)
			}
		}
	}
	if body, _ := os.ReadFile(used); string(body) != "precious" {
		t.Errorf("the file holds %q", body)
	}
}

// TestRecordSupervised: the recording is that of the first worker, whole up to its death;
// the next one says that it does not record.
func TestRecordSupervised(t *testing.T) {
	dir := t.TempDir()
	sock, control, file := filepath.Join(dir, "s"), filepath.Join(dir, "c"), filepath.Join(dir, "recording")
	like := program(t, "serve", fmt.Sprintf("--sandbox=%t", confine.Supported()), "--virgl=off", "--display", "headless", "--socket-path", sock, "--control", control, "--record", file)
	cmd := exec.Command(like.Path, like.Args[1:]...)
	cmd.Env = like.Env
	log := &logBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	defer func() {
		if !ended {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}()
	var st broker.Status
	var err error
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if st, err = broker.ReadStatus(control); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no status: %v\n%s", err, log)
		}
	}
	g, err := fakeguest.Dial(sock, fakeguest.Config{Profile: vhostusertest.QEMU11B})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Quit()
	if err := g.Boot(); err != nil {
		t.Fatal(err)
	}
	resp := make([]byte, 512)
	for id := uint32(1); id <= 4; id++ {
		if id == 3 {
			if err := syscall.Kill(st.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := g.Do((&virtiogpu.ResourceCreate2D{ResourceID: id, Format: virtiogpu.FormatB8G8R8X8, Width: 8, Height: 8}).Append(nil), resp); err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ended = true
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, log)
	}
	if !strings.Contains(log.String(), "the recording ended with the worker before") {
		t.Errorf("the second worker does not say that it does not record:\n%s", log)
	}
	// The kill may come before or after the worker has taken the third command.
	out := replay(t, exitOK, file, "--virgl=off")
	if !strings.Contains(out, "2 commands played") && !strings.Contains(out, "3 commands played") || !strings.Contains(out, "the broker was killed") {
		t.Errorf("replay says\n%s\n%s", out, log)
	}
}
