// Package rules holds the tests of what the source may look like: which package
// imports which, where unsafe and cgo may be.
package rules

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/gpubroker/gpubroker"

// layers from the top down: an import may point to a lower one or stay in its
// own. The longest matching prefix counts.
var layers = []string{
	"testing", "cmd", "broker", "broker/", "virgl", "gbm", "shmfallback",
	"virgl/dl", // loads shared libraries for virgl and gbm, and knows neither
	"dmabuf",
}

// cgoHome is the only package that may use cgo, and go-gl, which is cgo.
const cgoHome = "virgl/glread"

// layer returns the rank of a package, higher for lower ones.
func layer(pkg string) int {
	best, rank := -1, -1
	for i, prefix := range layers {
		match := pkg == prefix || strings.HasPrefix(pkg, strings.TrimSuffix(prefix, "/")+"/") &&
			!(prefix == "broker")
		if match && len(prefix) > best {
			best, rank = len(prefix), i
		}
	}
	return rank
}

// source is one Go file of the module.
type source struct {
	path    string // from the module's root
	pkg     string // its folder
	imports []string
}

func sources(t *testing.T) []source {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var out []source
	err = filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && file != root && (strings.HasPrefix(name, ".") || name == "out" || name == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		out = append(out, source{path: rel, pkg: path.Dir(rel), imports: importsOf(parsed)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 20 {
		t.Fatalf("found only %d Go files under %s", len(out), root)
	}
	return out
}

func importsOf(f *ast.File) []string {
	var out []string
	for _, spec := range f.Imports {
		out = append(out, strings.Trim(spec.Path.Value, `"`))
	}
	return out
}

func TestImportsPointDown(t *testing.T) {
	for _, src := range sources(t) {
		from := layer(src.pkg)
		if from < 0 {
			if src.pkg != "." && src.pkg != "packaging" {
				t.Errorf("%s: package %q is in no layer", src.path, src.pkg)
			}
			continue
		}
		for _, imp := range src.imports {
			pkg, ok := strings.CutPrefix(imp, module+"/")
			// Tests may use the packages of testing/ and the fakes beside the code.
			if !ok || strings.HasSuffix(src.path, "_test.go") {
				continue
			}
			if to := layer(pkg); to < from {
				t.Errorf("%s imports %s, which stands above it", src.path, pkg)
			}
		}
	}
}

func TestUnsafeStaysInItsFiles(t *testing.T) {
	for _, src := range sources(t) {
		name := strings.TrimSuffix(strings.TrimSuffix(src.path, ".go"), "_test")
		for _, imp := range src.imports {
			if imp == "unsafe" && !strings.HasSuffix(name, "_unsafe") {
				t.Errorf("%s imports unsafe but is not named *_unsafe.go", src.path)
			}
		}
	}
}

func TestCgoStaysInItsPackage(t *testing.T) {
	for _, src := range sources(t) {
		for _, imp := range src.imports {
			cgo := imp == "C" || imp == "runtime/cgo" || strings.HasPrefix(imp, "github.com/go-gl/")
			if cgo && src.pkg != cgoHome {
				t.Errorf("%s imports %s: cgo belongs into %s alone", src.path, imp, cgoHome)
			}
		}
	}
}

// guestCmd is the program inside the guest: small and static, so it logs with what Go has.
const guestCmd = "cmd/gpubroker-guest"

func TestZapIsTheOnlyLogger(t *testing.T) {
	for _, src := range sources(t) {
		for _, imp := range src.imports {
			if imp == "log/slog" && strings.HasPrefix(src.pkg, guestCmd) {
				continue
			}
			if imp == "log" || imp == "log/slog" {
				t.Errorf("%s imports %s: zap is the only logger", src.path, imp)
			}
		}
	}
}

// words that say a thing is not done.
var words = []string{"TO" + "DO", "FIX" + "ME", "XX" + "X:", "HA" + "CK"}

func TestNothingIsLeftForLater(t *testing.T) {
	for _, src := range sources(t) {
		body, err := os.ReadFile(filepath.Join("../..", src.path))
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(body), "\n") {
			for _, word := range words {
				if strings.Contains(line, word) {
					t.Errorf("%s:%d says %q", src.path, i+1, word)
				}
			}
		}
	}
}

func TestLayer(t *testing.T) {
	order := []string{"testing/lab", "cmd/gpubroker", "broker", "broker/virtq", "virgl/virgltest", "gbm", "shmfallback", "virgl/dl", "dmabuf/fdtest"}
	for i := 1; i < len(order); i++ {
		if layer(order[i-1]) >= layer(order[i]) {
			t.Errorf("%s (%d) does not stand above %s (%d)", order[i-1], layer(order[i-1]), order[i], layer(order[i]))
		}
	}
	if layer("other") != -1 {
		t.Error("an unknown package has a layer")
	}
}
