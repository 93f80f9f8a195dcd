package broker

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/png"
	"strconv"
	"sync"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/dmabuf"
	"github.com/gpubroker/gpubroker/shmfallback"
)

// Shot is a picture of a scanout or a resource, as the control socket answers.
type Shot struct {
	Resource uint32 `json:"resource"`
	Scanout  int    `json:"scanout"` // -1: a resource was asked for
	Width    int    `json:"width"`   // pixels
	Height   int    `json:"height"`
	Format   string `json:"format"` // the guest's
	PNG      []byte `json:"png"`    // base64 in JSON
}

// ErrNoPicture says that what a shot asks for does not exist or is no picture; the text
// says which.
var ErrNoPicture = errors.New("there is no picture")

// maxShot bounds a shot, in pixels: four times the largest common screen.
const maxShot = 8192 * 8192

// Shots makes pictures of what a device holds, one at a time.
type Shots struct {
	dev *Device
	mu  sync.Mutex
}

// NewShots makes shots of d. Its methods run on any goroutine but the render thread.
func NewShots(d *Device) *Shots { return &Shots{dev: d} }

// Request is the control socket's "shot".
func (s *Shots) Request() Request {
	const usage = "shot scanout N; shot resource ID"
	return Request{Name: "shot", Usage: usage, Answer: func(args []string) (any, error) {
		if len(args) != 2 {
			return nil, fmt.Errorf("shot with %d words: want %s", len(args), usage)
		}
		n, err := strconv.ParseUint(args[1], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("shot of %.32q: want a number", args[1])
		}
		switch args[0] {
		case "scanout":
			return s.Scanout(uint32(n))
		case "resource":
			return s.Resource(uint32(n))
		}
		return nil, fmt.Errorf("shot of %.32q: want %s", args[0], usage)
	}}
}

// Scanout makes a picture of what a head shows: the part of its resource, opaque, with
// everything that was submitted until now.
func (s *Shots) Scanout(head uint32) (*Shot, error) {
	return s.take(func(d *Device) (source, error) {
		if head >= uint32(d.cfg.Heads) {
			return source{}, fmt.Errorf("%w: scanout %d, limit %d", ErrNoPicture, head, d.cfg.Heads-1)
		}
		o := &d.scanouts[head]
		if o.pic == nil {
			return source{}, fmt.Errorf("%w: scanout %d is off", ErrNoPicture, head)
		}
		return source{o.pic, o.rect, int(head)}, nil
	})
}

// Resource makes a picture of a whole resource, with the components as they are stored:
// alpha too if its format has some. A blob is shown as a scanout showed it last.
func (s *Shots) Resource(id uint32) (*Shot, error) {
	return s.take(func(d *Device) (source, error) {
		res := d.resources[id]
		switch {
		case res == nil:
			return source{}, fmt.Errorf("%w: resource %d does not exist", ErrNoPicture, id)
		case res.blob != nil && len(res.pics) == 0:
			return source{}, fmt.Errorf("%w: resource %d is a blob that no scanout showed, so nothing says what its bytes are", ErrNoPicture, id)
		case res.blob != nil:
			p := res.pics[len(res.pics)-1]
			return source{p, display.Rect{W: p.layout.w, H: p.layout.h}, -1}, nil
		case res.fourcc == 0:
			return source{}, fmt.Errorf("%w: resource %d has format %d and target %d, which is no picture", ErrNoPicture, id, res.args.Format, res.args.Target)
		}
		return source{&picture{res: res, layout: res.layout()}, display.Rect{W: res.args.Width, H: res.args.Height}, -1}, nil
	})
}

// source is what a shot is made of. Render thread only.
type source struct {
	pic  *picture
	rect display.Rect
	head int // -1: a whole resource
}

// take finds the source and reads its pixels on the render thread; what takes longer is
// done here.
func (s *Shots) take(find func(*Device) (source, error)) (*Shot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := errors.New("the broker ends")
	var shot Shot
	var pixels []byte
	var alpha bool
	s.dev.cfg.Loop.Call(func() {
		var src source
		if src, err = find(s.dev); err != nil {
			return
		}
		l := src.pic.layout
		alpha = src.head < 0 && l.fourcc.HasAlpha()
		shot = Shot{Resource: src.pic.res.id, Scanout: src.head, Width: int(src.rect.W), Height: int(src.rect.H), Format: l.fourcc.String()}
		pixels, err = s.dev.readPicture(src.pic, src.rect, alpha)
	})
	if err != nil {
		return nil, err
	}
	toNRGBA(pixels, alpha)
	img := &image.NRGBA{Pix: pixels, Stride: 4 * shot.Width, Rect: image.Rect(0, 0, shot.Width, shot.Height)}
	var out bytes.Buffer
	enc := png.Encoder{CompressionLevel: png.BestSpeed}
	if err := enc.Encode(&out, img); err != nil {
		return nil, fmt.Errorf("shot: %w", err)
	}
	shot.PNG = out.Bytes()
	return &shot, nil
}

// readPicture reads a part of a picture, top row first, as packed XRGB8888 or with alpha
// ARGB8888. It goes the copy tier's ways, but counts as no frame's copy. It waits for
// work that was submitted before.
func (d *Device) readPicture(p *picture, rect display.Rect, alpha bool) ([]byte, error) {
	if n := uint64(rect.W) * uint64(rect.H); n == 0 || n > maxShot {
		return nil, fmt.Errorf("%w: %dx%d pixels, limit %d", ErrNoPicture, rect.W, rect.H, maxShot)
	}
	to := dmabuf.XRGB8888
	if alpha {
		to = dmabuf.ARGB8888
	}
	pixels := make([]byte, int(rect.W)*int(rect.H)*4)
	c := shmfallback.Copy{Dst: pixels, DstStride: rect.W * 4, W: rect.W, H: rect.H, BytesPerPixel: 4}
	var m shmfallback.Meter
	switch res := p.res; {
	case res.kind == kind2D:
		return pixels, d.copyBuffer(&m, &c, res.buf, rect, to)
	case res.kind == kindBlob && !res.blob.drawn:
		return pixels, d.copyBlob(&m, &c, p, rect, to)
	default:
		raw := make([]byte, len(pixels))
		if err := d.rend.ReadPixels(res.id, rect.X, rect.Y, rect.W, rect.H, rect.W*4, raw); err != nil {
			return nil, err
		}
		var err error
		if c.Convert, err = shmfallback.ConvertFor(p.layout.fourcc, to); err != nil {
			return nil, err
		}
		d.seg[0] = raw
		c.Src, c.SrcStride = d.seg[:], rect.W*4
		err = m.CopyRect(&c)
		d.seg[0] = nil
		return pixels, err
	}
}

// toNRGBA turns pixels of XRGB8888 or ARGB8888 into Go's order, in place.
func toNRGBA(p []byte, alpha bool) {
	for ; len(p) >= 4; p = p[4:] {
		p[0], p[2] = p[2], p[0]
		if !alpha {
			p[3] = 255
		}
	}
}
