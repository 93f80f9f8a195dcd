//go:build cgo && egl

package glread

import (
	"fmt"
	"image"

	gl "github.com/go-gl/gl/v3.1/gles2"
)

// program draws a texture over the whole target, texel on pixel.
type program struct {
	id   uint32
	size int32 // uniform: of the target, in pixels
}

const vertexSource = `#version 100
attribute vec2 at;
void main() { gl_Position = vec4(at, 0.0, 1.0); }
`

const (
	plainSampler    = "#version 100\n#define SAMPLER sampler2D\n"
	externalSampler = "#version 100\n#extension GL_OES_EGL_image_external : require\n#define SAMPLER samplerExternalOES\n"

	fragmentSource = `precision highp float;
uniform SAMPLER tex;
uniform vec2 size;
void main() { gl_FragColor = texture2D(tex, gl_FragCoord.xy / size); }
`
)

func newProgram(fragment string) (program, error) {
	p := program{id: gl.CreateProgram()}
	for kind, source := range map[uint32]string{gl.VERTEX_SHADER: vertexSource, gl.FRAGMENT_SHADER: fragment} {
		s := gl.CreateShader(kind)
		text, free := gl.Strs(source + "\x00")
		gl.ShaderSource(s, 1, text, nil)
		free()
		gl.CompileShader(s)
		var ok int32
		if gl.GetShaderiv(s, gl.COMPILE_STATUS, &ok); ok == 0 {
			log := make([]byte, 1024)
			gl.GetShaderInfoLog(s, int32(len(log)), nil, &log[0])
			return p, fmt.Errorf("glread: %w: shader: %s", ErrNotSupported, gl.GoStr(&log[0]))
		}
		gl.AttachShader(p.id, s)
		gl.DeleteShader(s)
	}
	gl.BindAttribLocation(p.id, 0, gl.Str("at\x00"))
	gl.LinkProgram(p.id)
	var ok int32
	if gl.GetProgramiv(p.id, gl.LINK_STATUS, &ok); ok == 0 {
		return p, fmt.Errorf("glread: %w: shaders do not link", ErrNotSupported)
	}
	p.size = gl.GetUniformLocation(p.id, gl.Str("size\x00"))
	return p, nil
}

// corners of a strip that covers the target.
var corners = []float32{-1, -1, 1, -1, -1, 1, 1, 1}

// draw draws the texture and reads it into img, row 0 first.
func (p program) draw(target, tex uint32, img *image.NRGBA) error {
	w, h := int32(img.Rect.Dx()), int32(img.Rect.Dy())
	var color, fbo uint32
	gl.GenRenderbuffers(1, &color)
	defer gl.DeleteRenderbuffers(1, &color)
	gl.BindRenderbuffer(gl.RENDERBUFFER, color)
	gl.RenderbufferStorage(gl.RENDERBUFFER, gl.RGBA8, w, h)
	gl.GenFramebuffers(1, &fbo)
	defer gl.DeleteFramebuffers(1, &fbo)
	gl.BindFramebuffer(gl.FRAMEBUFFER, fbo)
	gl.FramebufferRenderbuffer(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.RENDERBUFFER, color)
	if s := gl.CheckFramebufferStatus(gl.FRAMEBUFFER); s != gl.FRAMEBUFFER_COMPLETE {
		return fmt.Errorf("%w: framebuffer status %#x for %dx%d", ErrNotSupported, s, w, h)
	}
	gl.BindTexture(target, tex)
	for name, value := range map[uint32]int32{
		gl.TEXTURE_MIN_FILTER: gl.NEAREST, gl.TEXTURE_MAG_FILTER: gl.NEAREST,
		gl.TEXTURE_WRAP_S: gl.CLAMP_TO_EDGE, gl.TEXTURE_WRAP_T: gl.CLAMP_TO_EDGE,
	} {
		gl.TexParameteri(target, name, value)
	}
	p.fill(w, h)
	gl.ReadPixels(0, 0, w, h, gl.RGBA, gl.UNSIGNED_BYTE, gl.Ptr(img.Pix))
	if e := gl.GetError(); e != gl.NO_ERROR {
		return fmt.Errorf("%w: GL error %#x", ErrImport, e)
	}
	return nil
}

// fill runs the program for every pixel of the framebuffer that is bound.
func (p program) fill(w, h int32) {
	var vbo uint32
	gl.GenBuffers(1, &vbo)
	defer gl.DeleteBuffers(1, &vbo)
	gl.BindBuffer(gl.ARRAY_BUFFER, vbo)
	gl.BufferData(gl.ARRAY_BUFFER, 4*len(corners), gl.Ptr(corners), gl.STATIC_DRAW)
	gl.EnableVertexAttribArray(0)
	gl.VertexAttribPointerWithOffset(0, 2, gl.FLOAT, false, 0, 0)
	gl.Viewport(0, 0, w, h)
	gl.UseProgram(p.id)
	gl.Uniform2f(p.size, float32(w), float32(h))
	gl.DrawArrays(gl.TRIANGLE_STRIP, 0, 4)
}

// flip turns a picture over.
func flip(img *image.NRGBA) {
	h := img.Rect.Dy()
	row := make([]byte, img.Stride)
	for y := range h / 2 {
		a, b := img.Pix[y*img.Stride:][:img.Stride], img.Pix[(h-1-y)*img.Stride:][:img.Stride]
		copy(row, a)
		copy(a, b)
		copy(b, row)
	}
}
