package keep

import (
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestConnector: a worker gets the connections that it may have, hears about others no
// more than it may, and what is wrong.
func TestConnector(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"compositor", "own", "bus"} {
		l, err := net.Listen("unix", at(name))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte(name))
				_ = c.Close()
			}
		}()
	}
	ours, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	reach := map[string]Reach{at("compositor"): Connection, at("own"): Answer, at("gone"): Connection, at("left over"): Answer, strings.Repeat("x", 200): Connection}
	var serving sync.WaitGroup
	serving.Go(func() { ServeConnector(ours, func(path string) Reach { return reach[path] }) })
	s := NewSocket(theirs)
	connect := connector(s)
	for range 3 {
		c, err := connect(at("compositor"))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.SetNonblock(c.Int(), false); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 32)
		if n, err := unix.Read(c.Int(), buf); err != nil || string(buf[:n]) != "compositor" {
			t.Errorf("reads %q, %v", buf[:n], err)
		}
		_ = c.Close()
		for path, want := range map[string]error{
			at("own"): unix.EAGAIN, at("bus"): unix.EACCES, at("gone"): unix.ENOENT, at("left over"): unix.ENOENT, "": unix.EACCES,
			strings.Repeat("x", 200): unix.EINVAL, strings.Repeat("x", 300): ErrMessage,
		} {
			if c, err := connect(path); !errors.Is(err, want) || c != nil {
				t.Errorf("%.20s: %v, want %v", path, err, want)
			}
		}
	}
	s.Shutdown()
	serving.Wait()
	if c, err := connect(at("compositor")); err == nil {
		t.Errorf("%v without anybody who could connect", c)
	}
	_ = s.Close()
}
