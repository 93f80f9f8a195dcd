package main

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"slices"
)

// caseJSON is one kind of buffer on one host.
type caseJSON struct {
	Name        string   `json:"name"`
	Host        string   `json:"host"`  // "plain" or "vm"
	Guest       string   `json:"guest"` // "linux" or "fake"
	Tier        string   `json:"tier"`
	Frames      uint64   `json:"frames"` // that the compositor was given
	BytesCopied uint64   `json:"bytes_copied"`
	BytesDrawn  uint64   `json:"bytes_drawn"` // the damage of all frames together
	WrongPixels int      `json:"wrong_pixels"`
	Problems    []string `json:"problems,omitempty"`
}

func (c *caseJSON) problem(format string, args ...any) {
	c.Problems = append(c.Problems, fmt.Sprintf(format, args...))
}

// judge compares a case with what its tier promises.
func (c *caseJSON) judge(want string) {
	if c.Tier != want {
		c.problem("tier %q, want %q", c.Tier, want)
	}
	if c.Frames == 0 {
		c.problem("no frame reached the compositor")
	}
	if c.WrongPixels != 0 {
		c.problem("%d pixels are wrong", c.WrongPixels)
	}
	switch want {
	case tierUDMABuf, tierShared:
		if c.BytesCopied != 0 {
			c.problem("%d bytes copied, want 0", c.BytesCopied)
		}
	case tierShm:
		if c.BytesCopied != c.BytesDrawn {
			c.problem("%d bytes copied, the guest drew %d", c.BytesCopied, c.BytesDrawn)
		}
	default:
		if c.BytesCopied == 0 {
			c.problem("no byte copied, which tier %q cannot do", want)
		}
	}
}

// The tiers, as the broker names them.
const (
	tierUDMABuf = "udmabuf"
	tierShared  = "shared"
	tierShm     = "shm"
	tierCopy    = "copy"
)

// leftJSON is what exists at one moment.
type leftJSON struct {
	BrokerFDs     int    `json:"broker_fds"`
	QEMUFDs       int    `json:"qemu_fds"`
	WindowUsed    uint64 `json:"window_used"`
	Placements    int    `json:"placements"`
	MemoryRegions int    `json:"memory_regions"` // lines of QEMU's "info mtree -f"
	Resources     int    `json:"resources"`
}

// cycleJSON is a run of many short-lived blobs.
type cycleJSON struct {
	Name    string   `json:"name"`
	Cycles  int      `json:"cycles"`
	Resets  int      `json:"resets"`
	Bytes   uint64   `json:"bytes_mapped"`
	Seconds float64  `json:"seconds"`
	Start   leftJSON `json:"start"`
	End     leftJSON `json:"end"`
	Peak    int      `json:"peak_placements"`
}

// reportJSON is out/blobs/report.json.
type reportJSON struct {
	Cases     []*caseJSON       `json:"cases"`
	Cycles    int               `json:"cycles"`
	LeakedFDs int               `json:"leaked_fds"`
	QEMUAlive bool              `json:"qemu_alive"`
	Features  map[string]string `json:"features"` // what the guest's kernel says, by --virgl
	CycleRuns []*cycleJSON      `json:"cycle_runs"`
	Problems  []string          `json:"problems"`
	Seconds   float64           `json:"seconds"`
	Versions  map[string]string `json:"versions"`
}

func (r *reportJSON) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// verdict says what is not as it should be.
func (r *reportJSON) verdict() error {
	var errs []error
	for _, c := range r.Cases {
		for _, p := range c.Problems {
			errs = append(errs, fmt.Errorf("%s (%s guest, %s): %s", c.Name, c.Guest, c.Host, p))
		}
	}
	for _, p := range r.Problems {
		errs = append(errs, errors.New(p))
	}
	return errors.Join(errs...)
}

// wrongPixels counts the pixels whose colour is not the one wanted; every one if
// the sizes differ.
func wrongPixels(got image.Image, want *image.NRGBA) (n int) {
	b := got.Bounds()
	if b.Size() != want.Rect.Size() {
		return want.Rect.Dx() * want.Rect.Dy()
	}
	for y := range b.Dy() {
		for x := range b.Dx() {
			g := color.NRGBAModel.Convert(got.At(b.Min.X+x, b.Min.Y+y)).(color.NRGBA)
			w := want.NRGBAAt(x, y)
			if g.R != w.R || g.G != w.G || g.B != w.B {
				n++
			}
		}
	}
	return n
}

func contains(list []string, s string) bool { return len(list) == 0 || slices.Contains(list, s) }
