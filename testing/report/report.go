// Package report writes what a make target found out: out/<command>/report.json
// and the pictures beside it, and the lines that show its progress.
package report

import (
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Dir is the folder of one command's results.
type Dir struct{ Path string }

// NewDir makes out/<command> below the working folder, empty.
func NewDir(command string) (Dir, error) {
	path := filepath.Join("out", command)
	if err := os.RemoveAll(path); err != nil {
		return Dir{}, fmt.Errorf("clear %s: %w", path, err)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return Dir{}, fmt.Errorf("make %s: %w", path, err)
	}
	return Dir{path}, nil
}

// Part makes out/<command> where it is missing: several commands write there, one file each.
func Part(command string) (Dir, error) {
	d := Dir{filepath.Join("out", command)}
	if err := os.MkdirAll(d.Path, 0o755); err != nil {
		return Dir{}, fmt.Errorf("make %s: %w", d.Path, err)
	}
	return d, nil
}

// JSON writes v as report.json.
func (d Dir) JSON(v any) error { return d.File("report.json", v) }

// File writes v as JSON.
func (d Dir) File(name string, v any) error {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return os.WriteFile(filepath.Join(d.Path, name), append(body, '\n'), 0o644)
}

// PNG writes a picture.
func (d Dir) PNG(name string, img image.Image) error {
	f, err := os.Create(filepath.Join(d.Path, name))
	if err != nil {
		return fmt.Errorf("picture: %w", err)
	}
	if err := png.Encode(f, img); err != nil {
		_ = f.Close()
		return fmt.Errorf("picture %s: %w", name, err)
	}
	return f.Close()
}

// Create makes a file for a log.
func (d Dir) Create(name string) (*os.File, error) { return os.Create(filepath.Join(d.Path, name)) }

// Steps prints numbered steps with the time that each took.
type Steps struct {
	w     io.Writer
	total int
	n     int
	begun time.Time
	start time.Time
}

// NewSteps announces total steps on w.
func NewSteps(w io.Writer, total int) *Steps {
	return &Steps{w: w, total: total, start: time.Now()}
}

// Step ends the step before and begins the next.
func (s *Steps) Step(format string, args ...any) {
	s.end()
	s.n++
	s.begun = time.Now()
	fmt.Fprintf(s.w, "[%d/%d] %s … ", s.n, s.total, fmt.Sprintf(format, args...))
}

// Note adds a line below the step.
func (s *Steps) Note(format string, args ...any) {
	s.end()
	fmt.Fprintf(s.w, "      %s\n", fmt.Sprintf(format, args...))
}

func (s *Steps) end() {
	if !s.begun.IsZero() {
		fmt.Fprintf(s.w, "%.1f s\n", time.Since(s.begun).Seconds())
		s.begun = time.Time{}
	}
}

// Done ends the last step.
func (s *Steps) Done(format string, args ...any) {
	s.end()
	fmt.Fprintf(s.w, "%s (%.1f s in all)\n", fmt.Sprintf(format, args...), time.Since(s.start).Seconds())
}

// Colours counts the different colours of a picture and the share of its
// pixels that are not the most frequent one: a blank screen has 1 and 0.
func Colours(img image.Image) (colours int, drawn float64) {
	seen := map[[3]uint32]int{}
	b := img.Bounds()
	most := 0
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			r, g, bl, _ := img.At(x, y).RGBA()
			k := [3]uint32{r, g, bl}
			seen[k]++
			most = max(most, seen[k])
		}
	}
	return len(seen), 1 - float64(most)/float64(b.Dx()*b.Dy())
}
