//go:build cgo && egl

package glread

import (
	"fmt"

	gl "github.com/go-gl/gl/v3.1/gles2"

	"github.com/gpubroker/gpubroker/dmabuf"
)

// paintSource is Painted as a shader: fragments lie at halves of pixels.
const paintSource = `#version 100
precision highp float;
uniform vec2 size;
void main() { gl_FragColor = vec4(gl_FragCoord.xy / size, 64.0 / 255.0, 1.0); }
`

// Paint implements Reader.
func (r *reader) Paint(b *dmabuf.Buffer) error {
	if b.Kind != dmabuf.KindDMABuf {
		return fmt.Errorf("glread: paint %v: %w: no dma-buf", b, ErrNotSupported)
	}
	p, err := newProgram(paintSource)
	if err != nil {
		return err
	}
	defer gl.DeleteProgram(p.id)
	var tex, fbo uint32
	gl.GenTextures(1, &tex)
	defer gl.DeleteTextures(1, &tex)
	if err := r.importTo(gl.TEXTURE_2D, tex, b); err != nil {
		return err
	}
	gl.GenFramebuffers(1, &fbo)
	defer gl.DeleteFramebuffers(1, &fbo)
	gl.BindFramebuffer(gl.FRAMEBUFFER, fbo)
	defer gl.BindFramebuffer(gl.FRAMEBUFFER, 0)
	gl.FramebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, tex, 0)
	if s := gl.CheckFramebufferStatus(gl.FRAMEBUFFER); s != gl.FRAMEBUFFER_COMPLETE {
		return fmt.Errorf("glread: paint %v: %w: framebuffer status %#x", b, ErrImport, s)
	}
	gl.Disable(gl.DITHER)
	p.fill(int32(b.Width), int32(b.Height))
	gl.Finish()
	if e := gl.GetError(); e != gl.NO_ERROR {
		return fmt.Errorf("glread: paint %v: %w: GL error %#x", b, ErrImport, e)
	}
	return nil
}
