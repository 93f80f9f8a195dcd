// Package golden compares pictures with ones that were looked at and kept in
// testdata/golden.
//
//	golden.Check(t, "cube", img, golden.Tolerance{Channel: 2})
//
// `go test -update` writes the pictures anew. A picture that differs is left,
// together with a map of the differences, in the folder named by the failure.
package golden

import (
	"flag"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the golden pictures anew")

// Check fails t if img differs from testdata/golden/NAME.png by more than tol.
func Check(t testing.TB, name string, img image.Image, tol Tolerance) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name+".png")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatalf("golden %s: %v", name, err)
		}
		if err := WritePNG(path, img); err != nil {
			t.Fatalf("golden %s: %v", name, err)
		}
		return
	}
	want, err := ReadPNG(path)
	if err != nil {
		t.Errorf("golden %s: %v (write it with -update, then look at it)", name, err)
		Keep(t, name+"-got", img)
		return
	}
	Equal(t, name, img, want, tol)
}

// Equal fails t if got differs from want by more than tol; name names the
// pictures that a failure leaves.
func Equal(t testing.TB, name string, got, want image.Image, tol Tolerance) {
	t.Helper()
	d := Compare(got, want, tol)
	if d.OK() {
		return
	}
	t.Errorf("picture %s: %v", name, d)
	Keep(t, name+"-got", got)
	Keep(t, name+"-want", want)
	if d.Map != nil {
		Keep(t, name+"-diff", d.Map)
	}
}

// Keep writes a picture to the test's folder of artifacts (kept with
// `go test -artifacts`, else in the system's folder for temporary files) and logs
// where.
func Keep(t testing.TB, name string, img image.Image) {
	t.Helper()
	dir := filepath.Join(os.TempDir(), "gpubroker-golden")
	if f := flag.Lookup("test.artifacts"); f != nil && f.Value.String() == "true" {
		dir = t.ArtifactDir()
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Errorf("keep %s: %v", name, err)
		return
	}
	path := filepath.Join(dir, name+".png")
	if err := WritePNG(path, img); err != nil {
		t.Errorf("keep %s: %v", name, err)
		return
	}
	t.Logf("wrote %s", path)
}

// ReadPNG reads a picture.
func ReadPNG(path string) (image.Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return png.Decode(f)
}

// WritePNG writes a picture.
func WritePNG(path string, img image.Image) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := png.Encode(f, img); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
