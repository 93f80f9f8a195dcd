package smoke

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Task is what a child is told to do.
type Task struct {
	Probe    string   `json:"probe"`
	Node     string   `json:"node,omitempty"`    // DRM node; empty: none
	Needed   bool     `json:"needed,omitempty"`  // the node was asked for
	Wayland  string   `json:"wayland,omitempty"` // compositor's socket
	QEMU     string   `json:"qemu,omitempty"`
	KVM      bool     `json:"kvm,omitempty"`      // guests run under KVM
	Layouts  []Layout `json:"layouts,omitempty"`  // what the compositor takes
	Software bool     `json:"software,omitempty"` // the node's driver draws nothing
}

// message is a line of a child: a check begins, a row is ready, or something was found
// that other probes need.
type message struct {
	Begin   string    `json:"begin,omitempty"`
	Subject string    `json:"subject,omitempty"`
	Row     *Row      `json:"row,omitempty"`
	Found   *findings `json:"found,omitempty"`
}

// findings are what later probes and the verdict need of earlier ones.
type findings struct {
	Nodes   []node   `json:"nodes,omitempty"`
	Layouts []Layout `json:"layouts,omitempty"` // dma-bufs that the compositor takes
	Shm     bool     `json:"shm,omitempty"`     // there is a compositor
	Exports []Layout `json:"exports,omitempty"` // what virgl gave out, pixels compared
	GPU     bool     `json:"gpu,omitempty"`
	KVM     bool     `json:"kvm,omitempty"`
	UDMABuf bool     `json:"udmabuf,omitempty"`
	Virgl   bool     `json:"virgl,omitempty"` // 3D works
}

func (f *findings) add(o *findings) {
	f.Nodes = append(f.Nodes, o.Nodes...)
	f.Layouts = append(f.Layouts, o.Layouts...)
	f.Exports = append(f.Exports, o.Exports...)
	f.Shm = f.Shm || o.Shm
	f.GPU = f.GPU || o.GPU
	f.KVM = f.KVM || o.KVM
	f.UDMABuf = f.UDMABuf || o.UDMABuf
	f.Virgl = f.Virgl || o.Virgl
}

// probe is one probe at work in a child.
type probe struct {
	Task
	out   *json.Encoder
	begun time.Time
	name  string
	subj  string
}

// begin names the check that runs now, so that a crash can be told of it.
func (p *probe) begin(name, subject string) {
	p.begun, p.name, p.subj = time.Now(), name, subject
	p.send(message{Begin: name, Subject: subject})
}

// end reports the check that began last.
func (p *probe) end(r Row) {
	r.Name, r.Subject, r.Seconds = p.name, p.subj, time.Since(p.begun).Seconds()
	p.send(message{Row: &r})
}

func (p *probe) found(f findings) { p.send(message{Found: &f}) }

// send never fails usefully: without the parent nobody reads the rows.
func (p *probe) send(m message) { _ = p.out.Encode(m) }

// probes by name. Tests add their own.
var probes = map[string]func(context.Context, *probe){
	"kernel":     probeKernel,
	"drm":        probeDRM,
	"kvm":        probeKVM,
	"compositor": probeCompositor,
	"gbm":        probeGBM,
	"gl":         probeGL,
	"virgl":      probeVirgl,
	"qemu":       probeQEMU,
}

// childFD is where a child writes: the drivers that it loads may print to the
// standard output.
const childFD = 3

// ServeChild runs the task that stands on in and writes its rows to descriptor 3. The
// child ends after it.
func ServeChild(ctx context.Context, in io.Reader) error {
	var t Task
	if err := json.NewDecoder(in).Decode(&t); err != nil {
		return fmt.Errorf("smoke: read task: %w", err)
	}
	f := probes[t.Probe]
	if f == nil {
		return fmt.Errorf("smoke: there is no probe %q", t.Probe)
	}
	out := os.NewFile(childFD, "results")
	if out == nil {
		return errors.New("smoke: no descriptor for the results")
	}
	// A crash is expected of some drivers; its core would only fill the disk.
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	runtime.LockOSThread() // GL contexts belong to a thread
	f(ctx, &probe{Task: t, out: json.NewEncoder(out)})
	return out.Close()
}

// maxMessage bounds a line of a child, in bytes.
const maxMessage = 8 << 20

// runChild runs a task and returns its rows, and what it found. A child that does not
// end well adds a row that says so.
func (o *Options) runChild(ctx context.Context, t Task) ([]Row, findings) {
	begun := time.Now()
	var rows []Row
	var found findings
	row := Row{Name: t.Probe, Subject: t.Node, State: Failed, Needed: t.Needed}
	fail := func(seen, cause, fix string) ([]Row, findings) {
		row.Seen, row.Cause, row.Fix, row.Seconds = seen, cause, fix, time.Since(begun).Seconds()
		return append(rows, row), found
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		return fail("not run", err.Error(), "")
	}
	defer func() { _ = r.Close() }()
	task, err := json.Marshal(t)
	if err != nil {
		_ = w.Close()
		return fail("not run", err.Error(), "")
	}
	cmd := o.Child(ctx)
	var stderr tail
	cmd.Stdin, cmd.Stderr, cmd.ExtraFiles = bytes.NewReader(task), &stderr, []*os.File{w}
	cmd.WaitDelay = time.Second
	err = cmd.Start()
	_ = w.Close() // the child has it
	if err != nil {
		return fail("not run", "the child does not start: "+err.Error(), "")
	}
	current := message{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxMessage)
	for lines.Scan() {
		var m message
		if json.Unmarshal(lines.Bytes(), &m) != nil {
			continue // half a line of a child that died
		}
		switch {
		case m.Row != nil:
			rows = append(rows, *m.Row)
			current = message{}
		case m.Found != nil:
			found.add(m.Found)
		case m.Begin != "":
			current, begun = m, time.Now()
		}
	}
	err = cmd.Wait()
	if err == nil && current.Begin == "" {
		return rows, found
	}
	if current.Begin != "" {
		row.Name, row.Subject = current.Begin, current.Subject
	}
	if ctx.Err() != nil {
		return fail("no answer", fmt.Sprintf("the driver or the kernel hangs: not done within %v", o.Timeout), "see the kernel's log (dmesg); --timeout allows more time")
	}
	if signal := crashOf(cmd.ProcessState, stderr.String()); signal != "" {
		return fail("crashed with "+signal, "a library or driver crashed the process: "+stderr.reason(), "update Mesa and libvirglrenderer, and report it with the output of this command")
	}
	return fail("ended early", fmt.Sprintf("%v: %s", err, stderr.reason()), "")
}

var signalName = regexp.MustCompile(`\bSIG[A-Z]+\b`)

// crashOf returns the signal that ended a process, "" if none did. The Go runtime turns
// most into a message and code 2.
func crashOf(st *os.ProcessState, stderr string) string {
	if st == nil {
		return ""
	}
	if ws, ok := st.Sys().(interface{ Signaled() bool }); ok && ws.Signaled() {
		if u, ok := st.Sys().(interface{ Signal() os.Signal }); ok {
			return u.Signal().String()
		}
		return st.String()
	}
	if st.ExitCode() == 2 && (strings.Contains(stderr, "fatal error: unexpected signal") || strings.HasPrefix(stderr, "SIG") || strings.Contains(stderr, "\nSIG")) {
		return signalName.FindString(stderr)
	}
	return ""
}

// tail keeps the beginning of what a child says, enough for a crash's reason.
type tail struct{ b []byte }

const maxTail = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p[:min(len(p), maxTail-len(t.b))]...)
	return len(p), nil
}

func (t *tail) String() string { return string(t.b) }

// reason is the first lines that tell something.
func (t *tail) reason() string {
	var out []string
	for line := range strings.Lines(string(t.b)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "goroutine ") {
			if len(out) > 0 && strings.HasPrefix(line, "goroutine ") {
				break
			}
			continue
		}
		if out = append(out, line); len(out) == 4 {
			break
		}
	}
	if len(out) == 0 {
		return "it left no message"
	}
	return strings.Join(out, "; ")
}

// SelfChild is an [Options.Child] for programs whose arguments args lead to ServeChild.
func SelfChild(args ...string) func(context.Context) *exec.Cmd {
	return func(ctx context.Context) *exec.Cmd {
		return exec.CommandContext(ctx, "/proc/self/exe", args...)
	}
}
