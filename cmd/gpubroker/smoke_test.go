package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpubroker/gpubroker/broker/smoke"
)

// TestSmoke runs the command as users do: the exit code is the report's.
func TestSmoke(t *testing.T) {
	cmd := program(t, "smoke", "--json")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var rep smoke.Report
	d := json.NewDecoder(bytes.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&rep); err != nil || d.More() {
		t.Fatalf("%q: %v\n%s", out, err, stderr.String())
	}
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	}
	if code != rep.Code || code > smoke.CodeUnusable || rep.Schema != smoke.Schema || len(rep.Rows) < 15 {
		t.Errorf("exit code %d, report %s with code %d and %d rows", code, rep.Verdict, rep.Code, len(rep.Rows))
	}
	if stderr.Len() > 0 {
		t.Errorf("standard error: %s", stderr.String())
	}
}

// TestSmokeWrongNode: code 2 and a row that says why.
func TestSmokeWrongNode(t *testing.T) {
	node := filepath.Join(t.TempDir(), "renderD128")
	out, err := program(t, "smoke", "--render-node", node).Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != smoke.CodeUnusable {
		t.Errorf("%v, want exit code %d", err, smoke.CodeUnusable)
	}
	for _, want := range []string{"failed", node, "it does not exist", "unusable"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the table lacks %q:\n%s", want, out)
		}
	}
}

func TestSmokeUsage(t *testing.T) {
	for args, want := range map[string]string{
		"smoke now":         `unexpected argument "now"`,
		"smoke --timeout 0": "--timeout 0s: want a time above 0",
		"smoke --no-such":   "unknown flag: --no-such",
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), strings.Fields(args), &stdout, &stderr); code != exitUsage || !strings.Contains(stderr.String(), want) {
			t.Errorf("%s: code %d, %q; want %d and %q", args, code, stderr.String(), exitUsage, want)
		}
	}
}
