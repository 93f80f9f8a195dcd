package broker_test

import (
	"bufio"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/unixsock"
)

func TestControl(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	c, err := broker.ListenControl(path, func(table bool) broker.Status {
		s := broker.Status{Commands: 7}
		if table {
			s.Resources = []broker.ResourceStatus{{ID: 3, Kind: "2d"}}
		}
		return s
	})
	if err != nil {
		t.Fatal(err)
	}
	st, err := broker.ReadStatus(path)
	if err != nil || st.Commands != 7 || len(st.Resources) != 1 || st.Resources[0].ID != 3 {
		t.Errorf("status %+v, %v", st, err)
	}
	for req, want := range map[string]string{
		"counters\n":                     `"commands": 7`,
		"make tea\n":                     `unknown request \"make tea\"`,
		"\n":                             `unknown request \"\"`,
		strings.Repeat("x", 1000) + "\n": "unknown request",
		"status":                         `"id": 3`, // the end of the stream ends a request too
	} {
		if got := ask(t, path, req); !strings.Contains(got, want) {
			t.Errorf("%.20q answered with %s, want %s in it", req, got, want)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket mode %v, %v", info.Mode(), err)
	}
	if _, err := broker.ListenControl(path, nil); !errors.Is(err, unixsock.ErrInUse) {
		t.Errorf("a second listener: %v", err)
	}
	idle, err := net.Dial("unix", path) // says nothing; Close must not wait for it
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = idle.Close() }()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func ask(t *testing.T, path, req string) string {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte(req)); err != nil {
		t.Fatal(err)
	}
	_ = conn.(*net.UnixConn).CloseWrite()
	var out strings.Builder
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		out.WriteString(lines.Text())
	}
	return out.String()
}
