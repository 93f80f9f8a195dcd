package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"image/color"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestCPIOReadBack(t *testing.T) {
	var c cpio
	c.dir("bin")
	c.file("bin/a", 0o755, []byte("hello"))
	c.char("null", 1, 3)
	body := c.bytes()
	want := []struct {
		name       string
		mode, size uint64
	}{{"bin", 0o040755, 0}, {"bin/a", 0o100755, 5}, {"null", 0o020600, 0}, {cpioEnd, 0, 0}}
	for _, w := range want {
		if !bytes.HasPrefix(body, []byte("070701")) {
			t.Fatalf("%s: no magic at %.20q", w.name, body)
		}
		field := func(i int) uint64 {
			v, err := strconv.ParseUint(string(body[6+8*i:14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		name := string(body[110 : 110+field(11)-1])
		if name != w.name || field(1) != w.mode || field(6) != w.size {
			t.Errorf("entry %q, mode %o, size %d, want %+v", name, field(1), field(6), w)
		}
		round := func(n uint64) uint64 { return (n + 3) &^ 3 }
		body = body[round(110+field(11))+round(field(6)):]
	}
	if len(body) != 0 {
		t.Errorf("%d bytes after the trailer", len(body))
	}
}

// xwd builds a dump of w x 1 pixels of 0x00RRGGBB.
func xwd(order binary.ByteOrder, pixels ...uint32) []byte {
	head := [25]uint32{100, 7, 2, 24, uint32(len(pixels)), 1}
	if order == binary.ByteOrder(binary.BigEndian) {
		head[7] = 1
	}
	head[11], head[12] = 32, uint32(4*len(pixels))
	var b bytes.Buffer
	_ = binary.Write(&b, binary.BigEndian, head)
	_ = binary.Write(&b, order, pixels)
	return b.Bytes()
}

func TestDecodeXWD(t *testing.T) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		img, err := decodeXWD(xwd(order, 0x102030, 0xff0000))
		if err != nil {
			t.Fatal(err)
		}
		for x, want := range []color.RGBA{{0x10, 0x20, 0x30, 255}, {255, 0, 0, 255}} {
			if got := img.At(x, 0); got != want {
				t.Errorf("%v pixel %d is %v, want %v", order, x, got, want)
			}
		}
	}
	for name, body := range map[string][]byte{
		"empty": nil,
		"short": xwd(binary.LittleEndian, 1, 2, 3)[:110],
	} {
		if _, err := decodeXWD(body); !errors.Is(err, errXWD) {
			t.Errorf("%s: %v, want %v", name, err, errXWD)
		}
	}
}

func FuzzDecodeXWD(f *testing.F) {
	f.Add(xwd(binary.LittleEndian, 1, 2, 3))
	f.Add(xwd(binary.BigEndian, 0xffffff))
	f.Fuzz(func(t *testing.T, body []byte) {
		img, err := decodeXWD(body)
		if (img == nil) == (err == nil) {
			t.Errorf("picture %v and error %v", img, err)
		}
		if err == nil && len(body) < 4*img.Bounds().Dx()*img.Bounds().Dy() {
			t.Errorf("%v from %d bytes", img.Bounds(), len(body))
		}
	})
}

func TestQuote(t *testing.T) {
	args := []string{"a", "", "b c", "it's", "$HOME", "a=b", "x\ny", "-device", "a,b=c", "*", "~"}
	out, err := exec.Command("sh", "-c", "printf '%s\\0' "+quote(args)).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"); strings.Join(got, "|") != strings.Join(args, "|") {
		t.Errorf("the shell reads %q, want %q", got, args)
	}
}

func TestTail(t *testing.T) {
	var all bytes.Buffer
	w := &tailWriter{next: &all}
	for i := range 10000 {
		if _, err := w.Write([]byte("line " + strconv.Itoa(i) + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.last(2); got != "\tline 9998\n\tline 9999" {
		t.Errorf("last(2) = %q", got)
	}
	if len(w.buf) > 2*tailBytes || strings.Count(all.String(), "\n") != 10000 {
		t.Errorf("kept %d bytes, passed on %d lines", len(w.buf), strings.Count(all.String(), "\n"))
	}
}

// guestSide plays guest/agent.sh over a pipe.
func guestSide(t *testing.T, log *bytes.Buffer) (*agent, net.Conn) {
	t.Helper()
	host, guest := net.Pipe()
	a := newAgent(host, log)
	t.Cleanup(func() { guest.Close(); a.close() })
	return a, guest
}

func TestAgent(t *testing.T) {
	var log bytes.Buffer
	a, guest := guestSide(t, &log)
	say := func(text string) {
		if _, err := guest.Write([]byte(text)); err != nil {
			t.Error(err)
		}
	}
	_, booted := a.booted()
	say("stray\nlab-agent-hello id1\n")
	<-booted
	script := func(body string) (string, int, error) {
		go func() {
			request := make([]byte, 256)
			n, err := guest.Read(request)
			if err != nil {
				t.Error(err)
				return
			}
			nonce := strings.Fields(string(request[:n]))[2]
			say(strings.ReplaceAll(body, "NONCE", nonce))
		}()
		run, err := a.start("s.sh")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return a.wait(ctx, run)
	}
	if out, code, err := script("a\nb\n\nNONCE 3\n"); out != "a\nb\n" || code != 3 || err != nil {
		t.Errorf("got %q, %d, %v", out, code, err)
	}
	if out, code, err := script("no newline\nNONCE 0\n"); out != "no newline" || code != 0 || err != nil {
		t.Errorf("got %q, %d, %v", out, code, err)
	}
	if _, _, err := script("half\nlab-agent-hello id2\n"); !errors.Is(err, ErrRebooted) {
		t.Errorf("got %v, want %v", err, ErrRebooted)
	}
	if n, _ := a.booted(); n != 2 {
		t.Errorf("%d boots, want 2", n)
	}
	if _, _, err := script("x\nNONCE many\n"); err == nil {
		t.Error("a bad exit code was accepted")
	}
	go func() { _, _ = guest.Read(make([]byte, 256)); guest.Close() }()
	run, err := a.start("s.sh")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.start("t.sh"); err == nil {
		t.Error("two scripts at once were accepted")
	}
	if _, _, err := a.wait(t.Context(), run); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("the guest went away: %v", err)
	}
	if !strings.Contains(log.String(), "stray\n") || strings.Contains(log.String(), "lab-agent") {
		t.Errorf("log %q", log.String())
	}
}

func TestQMP(t *testing.T) {
	host, peer := net.Pipe()
	go func() {
		dec, enc := json.NewDecoder(peer), json.NewEncoder(peer)
		_ = enc.Encode(map[string]any{"QMP": map[string]any{"version": 1}})
		for {
			var cmd struct{ Execute string }
			if dec.Decode(&cmd) != nil {
				return
			}
			_ = enc.Encode(map[string]any{"event": "NOISE"})
			switch cmd.Execute {
			case "bad":
				_ = enc.Encode(map[string]any{"error": map[string]string{"class": "GenericError", "desc": "no"}})
			case "quit":
				peer.Close()
			case "hang":
			default:
				_ = enc.Encode(map[string]any{"return": map[string]string{"did": cmd.Execute}})
			}
		}
	}()
	q, err := newQMP(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	defer q.close()
	if out, err := q.run(t.Context(), "stop", nil); err != nil || string(out) != `{"did":"stop"}` {
		t.Errorf("stop: %s, %v", out, err)
	}
	var refused *QMPError
	if _, err := q.run(t.Context(), "bad", nil); !errors.As(err, &refused) || refused.Desc != "no" {
		t.Errorf("bad: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := q.run(ctx, "hang", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hang: %v", err)
	}
	if _, err := q.run(t.Context(), "stop", nil); err == nil {
		t.Error("a command was answered after one that timed out")
	}
}

func TestStartOutlivesTheCallersThread(t *testing.T) {
	for range 20 {
		cmd := exec.Command("sleep", "10")
		release, err := Start(cmd)
		if err != nil {
			t.Fatal(err)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		release()
		release() // once is enough, twice does no harm
	}
	if _, err := Start(exec.Command("/no/such/program")); err == nil {
		t.Error("a missing program started")
	}
	spawner.mu.Lock()
	defer spawner.mu.Unlock()
	if spawner.children != 0 || spawner.requests != nil {
		t.Errorf("%d children left", spawner.children)
	}
}

func TestFindSaysWhatToDo(t *testing.T) {
	if _, err := os.Stat(GuestPath); err == nil {
		t.Skip("inside a guest of the lab the root is always there")
	}
	dir := t.TempDir()
	t.Setenv("GPUBROKER_LAB", dir)
	if _, err := Find(); !errors.Is(err, ErrNoRoot) || !strings.Contains(err.Error(), "make lab") {
		t.Errorf("without a root: %v", err)
	}
	place := filepath.Join(dir, "root", "lab")
	if err := os.MkdirAll(place, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, body string) {
		if err := os.WriteFile(filepath.Join(place, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("recipe", "0123456789abcdef0123\n")
	if _, err := Find(); !errors.Is(err, ErrNoRoot) || !strings.Contains(err.Error(), "0123456789ab") {
		t.Errorf("another recipe: %v", err)
	}
	write("recipe", recipeHash()+"\n")
	write("kernel", "7.0\n")
	root, err := Find()
	if err != nil || root.Kernel != "7.0" || root.InGuest() {
		t.Errorf("a good root: %+v, %v", root, err)
	}
}

// The Go side and build.sh must agree on the recipe's hash.
func TestRecipeHashMatchesTheShell(t *testing.T) {
	cmd := exec.Command("bash", "-c", "sha256sum "+strings.Join(recipeFiles, " ")+" | sha256sum")
	cmd.Dir = "root"
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, _, _ := strings.Cut(string(out), " "); got != recipeHash() {
		t.Errorf("the shell says %s, Go %s", got, recipeHash())
	}
}
