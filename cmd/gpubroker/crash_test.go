//go:build crashtest

package main

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
)

// TestCrash: a wild pointer in C on the render thread, with the real renderer: the
// stream is answered with an error, the log names the context, and a new one works.
func TestCrash(t *testing.T) {
	dir := t.TempDir()
	sock, control := filepath.Join(dir, "s"), filepath.Join(dir, "c")
	cmd := program(t, "serve", "--virgl=on", "--display", "headless", "--socket-path", sock, "--control", control)
	cmd.Env = append(cmd.Env, "GPUBROKER_CRASH=victim:1")
	log := &logBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := broker.ReadStatus(control); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no status\n%s", log)
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
	resp := make([]byte, 64)
	do := func(cmd []byte) virtiogpu.Type {
		t.Helper()
		n, err := g.Do(cmd, resp)
		if err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		var h virtiogpu.CtrlHdr
		if err := h.Decode(resp[:n]); err != nil {
			t.Fatal(err)
		}
		return h.Type
	}
	create := virtiogpu.CtxCreate{CtrlHdr: virtiogpu.CtrlHdr{CtxID: 1}, NLen: 6}
	copy(create.Name[:], "victim")
	stream := (&virtiogpu.Submit3D{CtrlHdr: virtiogpu.CtrlHdr{CtxID: 1}, Size: 4}).Append(nil)
	stream = append(stream, 0, 0, 0, 0) // VIRGL_CCMD_NOP
	for i, want := range []virtiogpu.Type{virtiogpu.RespErrInvalidContextID, virtiogpu.RespOKNoData} {
		if typ := do(create.Append(nil)); !typ.IsOK() {
			t.Fatalf("context %d: %v\n%s", i, typ, log)
		}
		if typ := do(stream); typ != want {
			t.Errorf("stream %d: %v, want %v", i, typ, want)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if s := log.String(); !strings.Contains(s, "worker died") || !strings.Contains(s, `"context_name": "victim"`) || !strings.Contains(s, "SIGSEGV") {
		t.Errorf("the log does not say who died of what:\n%s", s)
	}
}
