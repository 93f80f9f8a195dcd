package smoke

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// nodeRow runs the probe of one node as Run does for --render-node.
func nodeRow(t *testing.T, o Options, node string) Row {
	t.Helper()
	rows, found := o.runChild(t.Context(), Task{Probe: "drm", Node: node, Needed: true})
	if len(rows) != 1 || len(found.Nodes) != 0 {
		t.Fatalf("rows %+v, found %+v", rows, found)
	}
	r := rows[0]
	if r.State != Failed || !r.Needed || r.Fix == "" || !strings.Contains(r.Cause, node) {
		t.Errorf("row %+v, want failed and needed, with the node in its cause and a fix", r)
	}
	return r
}

// TestWrongNode: each way for a node to be wrong has a row of its own.
func TestWrongNode(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ node, seen string }{
		{filepath.Join(dir, "renderD128"), "it does not exist"},
		{file, "it is no DRM node"},
		{dir, "it is no DRM node"},
		{"/dev/null", "it is no DRM node"},
	} {
		if r := nodeRow(t, options(t), c.node); r.Seen != c.seen {
			t.Errorf("%s: %q, want %q", c.node, r.Seen, c.seen)
		}
	}
}

// TestForbiddenNode: the row says whose the node is, who asks, and which group to join.
func TestForbiddenNode(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can run a child as another user")
	}
	dir, err := os.MkdirTemp("", "smoke-node-") // t.TempDir's parent is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	node := filepath.Join(dir, "renderD128")
	if err := syscall.Mknod(node, syscall.S_IFCHR|0o660, 226<<8|128); err != nil {
		t.Skipf("no device nodes can be made here: %v", err)
	}
	if err := os.Chmod(node, 0o660); err != nil { // mknod leaves out what umask says
		t.Fatal(err)
	}
	const videoGroup = 44 // Debian's, and in any case a group that nobody is in
	if err := os.Chown(node, 0, videoGroup); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "smoke.test")
	copyProgram(t, program)
	o := options(t)
	child := o.Child
	o.Child = func(ctx context.Context) *exec.Cmd {
		cmd := child(ctx)
		cmd.Path, cmd.Dir = program, "/"
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		return cmd
	}
	r := nodeRow(t, o, node)
	if r.Seen != "no permission" || !strings.Contains(r.Cause, "mode 0660, owner root") || !strings.Contains(r.Fix, "sudo usermod -aG "+groupName(videoGroup)+" ") {
		t.Errorf("row %+v", r)
	}
}

func copyProgram(t *testing.T, to string) {
	t.Helper()
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// virglRows runs the probe with another libvirglrenderer in front.
func virglRows(t *testing.T, dir string) []Row {
	t.Helper()
	o := options(t, "LD_LIBRARY_PATH="+dir)
	rows, found := o.runChild(t.Context(), Task{Probe: "virgl"})
	if len(rows) == 0 || found.Virgl || rows[0].Name != "virgl.init" {
		t.Fatalf("rows %+v, found %+v", rows, found)
	}
	return rows
}

// TestMissingLibrary: the dynamic linker cannot load libvirglrenderer.
func TestMissingLibrary(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "libvirglrenderer.so.1"), []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	rows := virglRows(t, dir)
	if r := rows[0]; r.State != Failed || !strings.Contains(r.Seen, "library is missing") || !strings.Contains(r.Cause, "libvirglrenderer.so.1") ||
		!strings.Contains(r.Fix, "apt install libvirglrenderer1") {
		t.Errorf("row %+v", r)
	}
	for _, r := range rows[1:] {
		if r.State != Skipped || r.Cause == "" {
			t.Errorf("row %+v, want skipped with its cause", r)
		}
	}
	if len(rows) != 4 {
		t.Errorf("%d rows, want 4", len(rows))
	}
}

// library compiles a libvirglrenderer of one's own.
func library(t *testing.T, source string) string {
	t.Helper()
	cc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skipf("needs a C compiler to make a broken library: %v", err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "lib.c")
	if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	so := "libvirglrenderer.so.1"
	if out, err := exec.Command(cc, "-shared", "-fPIC", "-Wl,-soname,"+so, "-o", filepath.Join(dir, so), file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// TestOldLibrary: functions are missing.
func TestOldLibrary(t *testing.T) {
	rows := virglRows(t, library(t, "int virgl_renderer_init(void *a, int b, void *c) { return 0; }\n"))
	if r := rows[0]; r.State != Failed || !strings.Contains(r.Cause, "too old") || !strings.Contains(r.Cause, "virgl_renderer_cleanup") || !strings.Contains(r.Fix, "libvirglrenderer1") {
		t.Errorf("row %+v", r)
	}
}

// TestCrashingLibrary: a SIGSEGV inside it is a row, and the report goes on.
func TestCrashingLibrary(t *testing.T) {
	var source strings.Builder
	source.WriteString("int virgl_renderer_init(void *a, int b, void *c) { *(volatile int *)16 = 1; return 0; }\n")
	for _, f := range []string{
		"cleanup", "poll", "get_poll_fd", "force_ctx_0", "get_cap_set", "fill_caps", "context_create_with_flags", "context_destroy",
		"ctx_attach_resource", "ctx_detach_resource", "resource_create", "resource_unref", "resource_attach_iov", "resource_detach_iov",
		"transfer_read_iov", "transfer_write_iov", "submit_cmd", "create_fence", "resource_get_info", "get_fd_for_texture2",
	} {
		source.WriteString("int virgl_renderer_" + f + "(void) { return 0; }\n")
	}
	source.WriteString("void virgl_set_debug_callback(void *f) {}\n")
	dir := library(t, source.String())
	rows := virglRows(t, dir)
	if r := rows[0]; len(rows) != 1 || r.State != Failed || r.Seen != "crashed with SIGSEGV" || r.Subject != surfaceless || r.Fix == "" {
		t.Errorf("rows %+v", rows)
	}
	o := options(t, "LD_LIBRARY_PATH="+dir)
	rep := Run(t.Context(), o)
	if rep.Find("virgl.init", surfaceless) == nil || rep.Find("kvm", "") == nil || rep.Find("frames", "") == nil {
		t.Errorf("the report ends with the crash: %+v", rep.Rows)
	}
}
