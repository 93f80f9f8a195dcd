package main

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
	"github.com/gpubroker/gpubroker/testing/lab"
)

// TestApps: a VM without a screen has two devices of one process; the second takes
// the guest's memory and nothing else, and the status tells of both.
func TestApps(t *testing.T) {
	dir := t.TempDir()
	sock, control, imp := filepath.Join(dir, "s"), filepath.Join(dir, "c"), filepath.Join(dir, "i")
	cmd := program(t, "serve", "--virgl=off", "--display", "none", "--apps", "--vm-name", "work", "--socket-path", sock,
		"--control", control, "--import-socket", imp)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if lab.Listening(control) {
			break
		}
		if time.Now().After(end) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			t.Fatalf("it does not listen:\n%s", &log)
		}
	}
	boot := func(path string) *fakeguest.Guest {
		t.Helper()
		qemu, err := vhostusertest.Dial(path)
		if err != nil {
			t.Fatal(err)
		}
		g, err := fakeguest.New(qemu, fakeguest.Config{Profile: vhostusertest.QEMU11B})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.Quit)
		if err := g.Boot(); err != nil {
			t.Fatal(err)
		}
		return g
	}
	gpu, second := boot(sock), boot(imp)
	if f := gpu.FE.Offered(); f>>virtiogpu.FeatureContextInit&1 == 0 {
		t.Errorf("features of the GPU %#x", f)
	}
	if f := second.FE.Offered(); f>>virtiogpu.FeatureResourceBlob&1 == 0 || f>>virtiogpu.FeatureVirgl&1 != 0 {
		t.Errorf("features of the import device %#x", f)
	}
	b, err := second.Pages.Scattered(8192)
	if err != nil {
		t.Fatal(err)
	}
	blob := virtiogpu.ResourceCreateBlob{ResourceID: 1, BlobMem: virtiogpu.BlobMemGuest, Size: 8192, NrEntries: uint32(len(b.Entries))}
	p := blob.Append(nil)
	for _, e := range b.Entries {
		p = virtiogpu.MemEntry{Addr: e.Addr, Length: e.Len}.Append(p)
	}
	resp := make([]byte, 64)
	if n, err := second.Do(p, resp); err != nil || n < virtiogpu.SizeCtrlHdr {
		t.Fatalf("%d bytes, %v", n, err)
	}
	st, err := broker.ReadStatus(control)
	if err != nil {
		t.Fatal(err)
	}
	if a := st.Apps; a == nil || a.Import == nil || !a.Import.Connected || a.Import.Resources != 1 || a.Import.Bytes != 8192 || a.Import.Errors != 0 {
		t.Errorf("%+v", st.Apps)
	} else if len(st.Windows) != 0 || a.Clients != 0 {
		t.Errorf("%d windows, %d clients", len(st.Windows), a.Clients)
	}
	second.Quit() // the other device goes on
	if _, err := gpu.Do((&virtiogpu.CtrlHdr{Type: virtiogpu.CmdGetDisplayInfo}).Append(nil), make([]byte, 512)); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, &log)
	}
	for _, path := range []string{sock, control, imp} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
}
