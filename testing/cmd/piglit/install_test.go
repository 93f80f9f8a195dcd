package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestParseShow(t *testing.T) {
	const text = `Package: libwaffle-1-0
Source: waffle
Version: 1:1.7.0-2
Depends: libc6 (>= 2.34)

Package: piglit
Version: 0~git20220119-124bca3c9-1
Description: Open-source test suite: Version: 1
`
	got, err := parseShow(text)
	if err != nil || !slices.Equal(got, []string{"0~git20220119-124bca3c9-1", "1%3a1.7.0-2"}) {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"", "Package: piglit\nVersion: 1\n", "Package: piglit\nVersion: ../1\n\nPackage: libwaffle-1-0\nVersion: 1\n"} {
		if got, err := parseShow(bad); err == nil {
			t.Errorf("%q has versions %q", bad, got)
		}
	}
}

func TestNewest(t *testing.T) {
	place := t.TempDir()
	if got, err := newest(filepath.Join(place, "none")); err == nil {
		t.Errorf("%q of nothing", got)
	}
	for _, name := range []string{"new-1", "0~git2022_1.7", "0~git2024+x_1.8"} {
		if err := os.Mkdir(filepath.Join(place, name), 0o755); err != nil {
			t.Fatal(err)
		}
		got, err := newest(place)
		if name == "new-1" == (err == nil) || err == nil && got != name {
			t.Errorf("after %s: %q, %v", name, got, err)
		}
	}
}

func TestArgv(t *testing.T) {
	p := &Piglit{home: "/lib/piglit"}
	got := p.argv(Test{Name: "shader_runner tests/spec/a.shader_test x"})
	want := []string{"/lib/piglit/bin/shader_runner", "/lib/piglit/tests/spec/a.shader_test", "x", "-auto", "-fbo"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
