// Package gldraw is an OpenGL ES program that draws without a window and looks at what it
// drew.
package gldraw

import (
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/gpubroker/gpubroker/virgl/dl"
)

const (
	width, height = 60, 36
	tile          = 4 // width and height of the texture, in texels
)

const vertexShader = `attribute vec4 at;
varying vec2 place;
void main() { gl_Position = at; place = at.xy * 0.5 + 0.5; }
`

const fragmentShader = `precision mediump float;
uniform sampler2D picture;
varying vec2 place;
void main() { gl_FragColor = texture2D(picture, place); }
`

// Result is what a program saw.
type Result struct {
	Renderer string        // GL_RENDERER
	First    time.Duration // until the first frame was looked at, start-up included
	Rest     time.Duration // from there to the last
}

// Draw draws frames, each with a texture of other colours and from vertices that are sent
// anew, on a cleared background, and compares every pixel. seed tells programs apart. What
// it knows is returned with an error, too.
func Draw(frames int, seed byte) (r Result, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := time.Now()
	g, err := load()
	if err != nil {
		return r, err
	}
	r.Renderer = dl.String(g.getString(glRenderer), 1<<10)
	out := dl.Malloc(width * height * 4)
	defer dl.Free(out)
	if err := g.prepare(out); err != nil {
		return r, err
	}
	px := dl.Bytes(out, width*height*4)
	for f := range frames {
		g.frame(f, seed, out)
		g.readPixels(0, 0, width, height, glRGBA, glUnsignedByte, out)
		if err := look(px, f, seed); err != nil {
			return r, fmt.Errorf("frame %d: %w", f, err)
		}
		if f == 0 {
			r.First = time.Since(start)
		}
	}
	r.Rest = time.Since(start) - r.First
	if e := g.getError(); e != 0 {
		return r, fmt.Errorf("OpenGL error %#x", e)
	}
	g.finish()
	return r, nil
}

// prepare makes what is drawn into, with what and from what. mem is scratch memory.
func (g *gl) prepare(mem uintptr) error {
	id := func(gen func(int32, uintptr)) uint32 {
		gen(1, mem)
		return binary.NativeEndian.Uint32(dl.Bytes(mem, 4))
	}
	target := id(g.genTextures)
	g.bindTexture(glTexture2D, target)
	g.texImage2D(glTexture2D, 0, glRGBA, width, height, 0, glRGBA, glUnsignedByte, 0)
	g.texParameteri(glTexture2D, glMinFilter, glNearest)
	g.bindFramebuffer(glFramebuffer, id(g.genFramebuffers))
	g.framebufferTexture2D(glFramebuffer, glColor0, glTexture2D, target, 0)
	if s := g.checkFramebufferStatus(glFramebuffer); s != glComplete {
		return fmt.Errorf("framebuffer status %#x", s)
	}
	g.bindTexture(glTexture2D, id(g.genTextures))
	g.texImage2D(glTexture2D, 0, glRGBA, tile, tile, 0, glRGBA, glUnsignedByte, 0)
	g.texParameteri(glTexture2D, glMinFilter, glNearest)
	g.texParameteri(glTexture2D, glMagFilter, glNearest)
	g.bindBuffer(glArrayBuffer, id(g.genBuffers))
	program := g.createProgram()
	for kind, text := range map[uint32]string{glVertexShader: vertexShader, glFragmentShader: fragmentShader} {
		s := g.createShader(kind)
		source := dl.CString(text)
		binary.NativeEndian.PutUint64(dl.Bytes(mem, 8), uint64(source))
		g.shaderSource(s, 1, mem, 0)
		dl.Free(source)
		g.compileShader(s)
		g.getShaderiv(s, glCompileStatus, mem)
		if dl.Bytes(mem, 1)[0] != 1 {
			return fmt.Errorf("shader %#x does not compile", kind)
		}
		g.attachShader(program, s)
	}
	name := dl.CString("at")
	g.bindAttribLocation(program, 0, name)
	dl.Free(name)
	g.linkProgram(program)
	g.getProgramiv(program, glLinkStatus, mem)
	if dl.Bytes(mem, 1)[0] != 1 {
		return fmt.Errorf("the program does not link")
	}
	g.useProgram(program)
	g.viewport(0, 0, width, height)
	return nil
}

// split is the column where a frame's square begins; left of it is the background.
func split(frame int) int { return 7 + frame%23 }

func (g *gl) frame(frame int, seed byte, mem uintptr) {
	texels := dl.Bytes(mem, tile*tile*4)
	for i := range tile * tile {
		c := colour(frame, seed, i)
		copy(texels[4*i:], c[:])
	}
	g.texSubImage2D(glTexture2D, 0, 0, 0, tile, tile, glRGBA, glUnsignedByte, mem)
	left := float32(2*split(frame))/width - 1
	vertices := dl.Bytes(mem, 4*2*4)
	for i, v := range [...]float32{left, -1, 1, -1, left, 1, 1, 1} {
		binary.NativeEndian.PutUint32(vertices[4*i:], math.Float32bits(v))
	}
	g.bufferData(glArrayBuffer, uintptr(len(vertices)), mem, glDynamicDraw)
	g.vertexAttribPointer(0, 2, glFloat, false, 8, 0)
	g.enableVertexAttrib(0)
	b := background(frame, seed)
	g.clearColor(float32(b[0])/255, float32(b[1])/255, float32(b[2])/255, 1)
	g.clear(glColorBufferBit)
	g.drawArrays(glTriangleStrip, 0, 4)
}

func background(frame int, seed byte) [4]byte { return [4]byte{seed, byte(frame * 5), 200, 255} }

func colour(frame int, seed byte, i int) [4]byte {
	return [4]byte{byte(i * 16), byte(frame * 7), seed, 255}
}

// look compares a frame's pixels, row 0 at the bottom.
func look(px []byte, frame int, seed byte) error {
	for y := range height {
		for x := range width {
			want := background(frame, seed)
			if x >= split(frame) {
				want = colour(frame, seed, (2*y+1)*tile/(2*height)*tile+(2*x+1)*tile/(2*width))
			}
			got := [4]byte(px[(y*width+x)*4:])
			for i := range got {
				if got[i]-want[i]+1 > 2 {
					return fmt.Errorf("pixel %d,%d is %v, want %v", x, y, got, want)
				}
			}
		}
	}
	return nil
}

func put32(addr uintptr, words ...uint32) {
	b := dl.Bytes(addr, 4*len(words))
	for i, w := range words {
		binary.NativeEndian.PutUint32(b[4*i:], w)
	}
}
