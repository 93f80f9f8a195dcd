package main

import (
	"context"
	"encoding/json"
	"fmt"
	"image"
	"strings"
	"time"

	"github.com/gpubroker/gpubroker/testing/blobguest/scene"
	"github.com/gpubroker/gpubroker/testing/report"
)

// Frames and rectangles that each case draws after its first frame.
const (
	flips = 10
	rects = 20
)

// linuxCase is a kind of buffer of blobguest's and the tier that it takes on a
// machine without udmabuf.
type linuxCase struct{ kind, tier string }

// The cases of a guest without and with 3D. A dumb buffer is a guest blob only
// where there is no 3D, and host blobs need 3D (Linux's rules).
var (
	cases2D = []linuxCase{{"dumb", tierCopy}, {"guest", tierCopy}, {"guest-offset", tierCopy}}
	cases3D = []linuxCase{
		{"dumb", tierShm}, {"guest", tierCopy}, {"guest-offset", tierCopy},
		{"host3d", tierShared}, {"host3d-virgl", tierCopy}, {"host3d-guest", tierCopy},
	}
)

// shower is blobguest show, running in the guest.
type shower struct{ r *rig }

func (r *rig) shower(ctx context.Context) (*shower, error) {
	_, err := r.vm.Check(ctx, `set -e
rm -f /tmp/in /tmp/out /tmp/err; mkfifo /tmp/in; touch /tmp/out
sleep 100000 > /tmp/in &
/tmp/blobguest show < /tmp/in > /tmp/out 2> /tmp/err &
echo $! > /tmp/pid
`)
	return &shower{r}, err
}

// guestAnswer is what blobguest says after each command.
type guestAnswer struct {
	W, H, Frame, Rects, Stride, Offset int
	Error                              string
}

func (s *shower) do(ctx context.Context, command string) (a guestAnswer, err error) {
	text, err := s.r.vm.Check(ctx, fmt.Sprintf(`n=$(wc -l < /tmp/out)
echo '%s' > /tmp/in
while [ $(wc -l < /tmp/out) -le $n ]; do kill -0 $(cat /tmp/pid) || { cat /tmp/err; exit 1; }; sleep 0.05; done
tail -n 1 /tmp/out
`, command))
	if err != nil {
		return a, fmt.Errorf("blobguest %s: %w", command, err)
	}
	if err := json.Unmarshal([]byte(strings.TrimSpace(text)), &a); err != nil {
		return a, fmt.Errorf("blobguest %s: %w: %s", command, err, text)
	}
	if a.Error != "" {
		err = fmt.Errorf("blobguest %s: %s", command, a.Error)
	}
	return a, err
}

// linuxCases runs the cases of one guest.
func (p *programs) linuxCases(ctx context.Context, r *rig, virgl string, cases []linuxCase) ([]*caseJSON, error) {
	s, err := r.shower(ctx)
	if err != nil {
		return nil, err
	}
	var list []*caseJSON
	for _, lc := range cases {
		c := &caseJSON{Name: lc.kind + ", virgl=" + virgl, Host: "plain", Guest: "linux"}
		list = append(list, c)
		if err := s.run(ctx, p.out, c, lc); err != nil {
			text, _, _ := r.vm.Run(ctx, "cat /tmp/err; dmesg | tail -n 5")
			return list, fmt.Errorf("%s: %w\n%s\n%s", c.Name, err, text, r.broker.Log())
		}
		fmt.Printf("%-30s %-8s %4d frames %9d bytes drawn %9d copied %6d wrong pixels %v\n", c.Name, c.Tier, c.Frames,
			c.BytesDrawn, c.BytesCopied, c.WrongPixels, c.Problems)
	}
	if _, err := s.do(ctx, "close"); err != nil {
		return list, err
	}
	_, err = r.vm.Check(ctx, "kill $(cat /tmp/pid); wait; sleep 0.5")
	return list, err
}

func (s *shower) run(ctx context.Context, out report.Dir, c *caseJSON, lc linuxCase) error {
	if _, err := s.do(ctx, "close"); err != nil {
		return err
	}
	before, err := s.r.status()
	if err != nil {
		return err
	}
	for _, step := range []struct {
		command string
		rects   int
		name    string
	}{{"new " + lc.kind, 0, "first"}, {fmt.Sprint("flip ", flips), 0, "flipped"}, {fmt.Sprint("dirty ", rects), rects, "damaged"}} {
		a, err := s.do(ctx, step.command)
		if err != nil {
			return err
		}
		img, wrong, err := s.r.compare(ctx, scene.Picture(a.W, a.H, a.Frame, a.Rects))
		if err != nil {
			return err
		}
		c.WrongPixels += wrong
		if wrong > 0 || step.rects > 0 {
			name := strings.NewReplacer(", virgl=", "-virgl-").Replace(c.Name) + "-" + step.name + ".png"
			if err := out.PNG(name, img); err != nil {
				return err
			}
		}
	}
	after, err := s.r.status()
	if err != nil {
		return err
	}
	c.BytesCopied = after.BytesCopied - before.BytesCopied
	c.BytesDrawn = 4 * (uint64(1+flips)*width*height + scene.Area(width, height, rects))
	if c.BytesCopied != c.BytesDrawn {
		// Linux 7.3 damages the whole buffer each time, once it showed another one.
		c.BytesDrawn = 4 * uint64(1+flips+rects) * width * height
	}
	c.Frames = after.Frames.DMABuf + after.Frames.Shm - before.Frames.DMABuf - before.Frames.Shm
	if n := after.Errors + after.RingErrors - before.Errors - before.RingErrors; n > 0 {
		c.problem("%d commands were refused", n)
	}
	if len(after.Scanouts) == 1 {
		c.Tier = after.Scanouts[0].Tier
	}
	c.judge(lc.tier)
	return nil
}

// compare takes screenshots until one is right, for a while: the last frame may be
// on its way.
func (r *rig) compare(ctx context.Context, want *image.NRGBA) (image.Image, int, error) {
	end := time.Now().Add(5 * time.Second)
	for {
		img, err := r.weston.Screenshot(ctx)
		if err != nil {
			return nil, 0, err
		}
		n := wrongPixels(img, want)
		if n == 0 || time.Now().After(end) {
			return img, n, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
}
