package crossdomain

import (
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Image is memory for a picture that the guest draws by itself.
type Image struct {
	FD       *dmabuf.FD // a memfd or a dma-buf, owned by whoever has the Image; nil if only the layout was asked for
	Size     uint64     // bytes, whole pages
	Strides  [4]uint32  // bytes
	Offsets  [4]uint32  // bytes
	Modifier dmabuf.Modifier
	MapInfo  uint32 // cache type (virtiogpu.MapCacheCached, …)
}

// imageQuery is GET_IMAGE_REQUIREMENTS, and the key of a template.
type imageQuery struct {
	w, h   uint32
	format dmabuf.Fourcc
	flags  uint32 // GBM's use flags; only a hint here, images are linear
}

// template is an image that the guest may make any number of.
type template struct {
	query  imageQuery
	layout Image
}

// imageRequirements answers in the query ring. An answer of zeros says that there
// is no such image.
func (c *Context) imageRequirements(p []byte) error {
	if c.query == nil {
		return refused("there is no ring before INIT")
	}
	if len(p) < SizeImageQuery {
		return malformed("cmd_size %d, want %d", len(p), SizeImageQuery)
	}
	q := imageQuery{w: le.Uint32(p[8:]), h: le.Uint32(p[12:]), format: dmabuf.Fourcc(le.Uint32(p[16:])), flags: le.Uint32(p[20:])}
	id, t, err := c.template(q)
	reply := make([]byte, SizeImageReply)
	if err == nil {
		for i := range 4 {
			le.PutUint32(reply[4*i:], t.layout.Strides[i])
			le.PutUint32(reply[16+4*i:], t.layout.Offsets[i])
		}
		le.PutUint64(reply[32:], uint64(t.layout.Modifier))
		le.PutUint64(reply[40:], t.layout.Size)
		le.PutUint32(reply[48:], id)
		le.PutUint32(reply[52:], t.layout.MapInfo)
		le.PutUint32(reply[56:], ^uint32(0)) // memory_idx and
		le.PutUint32(reply[60:], ^uint32(0)) // physical_device_idx: not Vulkan's
	}
	c.ringMu.Lock()
	defer c.ringMu.Unlock()
	if werr := c.query.write(reply); werr != nil && err == nil {
		err = werr
	}
	return err
}

// template finds the template of a query or makes one.
func (c *Context) template(q imageQuery) (uint32, *template, error) {
	if id, ok := c.templateIDs[q]; ok {
		return id, c.templates[id], nil
	}
	if len(c.templates) >= maxTemplates {
		return 0, nil, refused("%d kinds of image are known already, which is the limit", maxTemplates)
	}
	layout, err := c.dev.Image(q.w, q.h, q.format, false)
	if err != nil {
		return 0, nil, refused("image of %dx%d %v: %w", q.w, q.h, q.format, err)
	}
	id := c.newID()
	t := &template{q, layout}
	c.templates[id] = t
	c.templateIDs[q] = id
	return id, t, nil
}

// image makes an image of a template.
func (c *Context) image(t *template) (Image, error) {
	im, err := c.dev.Image(t.query.w, t.query.h, t.query.format, true)
	if err != nil {
		return Image{}, refused("image of %dx%d %v: %w", t.query.w, t.query.h, t.query.format, err)
	}
	if im.Strides != t.layout.Strides || im.Offsets != t.layout.Offsets || im.Size != t.layout.Size || im.Modifier != t.layout.Modifier {
		_ = im.FD.Close()
		return Image{}, refused("image of %dx%d %v: the allocator changed its layout", t.query.w, t.query.h, t.query.format)
	}
	return im, nil
}
