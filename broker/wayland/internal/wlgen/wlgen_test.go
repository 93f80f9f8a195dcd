package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const protoDir = "../../proto"

func inputs(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../protocols/*.xml")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d protocol files: %v", len(files), err)
	}
	return files
}

// TestGeneratedIsCurrent compares what the XML gives with what is checked in.
func TestGeneratedIsCurrent(t *testing.T) {
	files, err := generate(inputs(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(protoDir, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is out of date (%v): run go generate ./broker/wayland/proto", name, err)
		}
	}
	have, err := filepath.Glob(filepath.Join(protoDir, "*_gen.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range have {
		if files[filepath.Base(path)] == nil {
			t.Errorf("%s comes from no protocol: delete it", path)
		}
	}
}

func TestRunWritesFiles(t *testing.T) {
	dir := t.TempDir()
	if err := run(dir, inputs(t)[:1]); err != nil {
		t.Fatal(err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 2 {
		t.Errorf("%d files for one protocol, want it and the tables (%v)", len(list), err)
	}
}

func TestBadInput(t *testing.T) {
	for name, c := range map[string]struct{ xml, want string }{
		"no XML":       {"hello", "parse"},
		"no version":   {`<protocol name="p"><interface name="i"/></protocol>`, `interface "i" has version 0`},
		"bad type":     {`<protocol name="p"><interface name="i" version="1"><request name="r"><arg name="a" type="float"/></request></interface></protocol>`, `i.r: argument a has type "float"`},
		"bad value":    {`<protocol name="p"><interface name="i" version="1"><enum name="e"><entry name="v" value="x"/></enum></interface></protocol>`, "i.e.v"},
		"twice":        {`<protocol name="p"><interface name="i" version="1"/><interface name="i" version="1"/></protocol>`, "defined twice"},
		"no such file": {"", "no such file"},
	} {
		path := filepath.Join(t.TempDir(), "x.xml")
		if c.xml != "" {
			if err := os.WriteFile(path, []byte(c.xml), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := generate([]string{path}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	for in, want := range map[string]string{"xdg_wm_base": "XdgWmBase", "90": "90", "zwp_x_v1": "ZwpXV1"} {
		if got := camel(in); got != want {
			t.Errorf("camel(%q) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{"type": "typeArg", "wr": "wrArg", "mime_type": "mimeType"} {
		if got := param(in); got != want {
			t.Errorf("param(%q) = %q, want %q", in, got, want)
		}
	}
}
