package gldraw

import (
	"fmt"

	"github.com/ebitengine/purego"

	"github.com/gpubroker/gpubroker/virgl/dl"
)

// Numbers of EGL and OpenGL ES.
const (
	eglSurfaceless = 0x31DD // EGL_PLATFORM_SURFACELESS_MESA
	eglESAPI       = 0x30A0 // EGL_OPENGL_ES_API
	eglNone        = 0x3038

	glRenderer       = 0x1F01
	glTexture2D      = 0x0DE1
	glRGBA           = 0x1908
	glUnsignedByte   = 0x1401
	glFloat          = 0x1406
	glFramebuffer    = 0x8D40
	glColor0         = 0x8CE0
	glComplete       = 0x8CD5
	glMinFilter      = 0x2801
	glMagFilter      = 0x2800
	glNearest        = 0x2600
	glArrayBuffer    = 0x8892
	glDynamicDraw    = 0x88E8
	glVertexShader   = 0x8B31
	glFragmentShader = 0x8B30
	glCompileStatus  = 0x8B81
	glLinkStatus     = 0x8B82
	glColorBufferBit = 0x4000
	glTriangleStrip  = 5
)

// gl are the functions of OpenGL ES 2. All are called on one locked thread.
type gl struct {
	getString              func(name uint32) uintptr
	getError               func() uint32
	genTextures            func(n int32, out uintptr)
	bindTexture            func(target, id uint32)
	texParameteri          func(target, name uint32, v int32)
	texImage2D             func(target uint32, level, format, w, h, border int32, kind, typ uint32, data uintptr)
	texSubImage2D          func(target uint32, level, x, y, w, h int32, kind, typ uint32, data uintptr)
	genFramebuffers        func(n int32, out uintptr)
	bindFramebuffer        func(target, id uint32)
	framebufferTexture2D   func(target, at, kind, id uint32, level int32)
	checkFramebufferStatus func(target uint32) uint32
	genBuffers             func(n int32, out uintptr)
	bindBuffer             func(target, id uint32)
	bufferData             func(target uint32, n, data uintptr, usage uint32)
	createShader           func(kind uint32) uint32
	shaderSource           func(id uint32, n int32, text, lengths uintptr)
	compileShader          func(id uint32)
	getShaderiv            func(id, name uint32, out uintptr)
	createProgram          func() uint32
	attachShader           func(program, shader uint32)
	bindAttribLocation     func(program, at uint32, name uintptr)
	linkProgram            func(id uint32)
	getProgramiv           func(id, name uint32, out uintptr)
	useProgram             func(id uint32)
	vertexAttribPointer    func(at uint32, n int32, typ uint32, normalized bool, stride int32, offset uintptr)
	enableVertexAttrib     func(at uint32)
	viewport               func(x, y, w, h int32)
	clearColor             func(r, g, b, a float32)
	clear                  func(bits uint32)
	drawArrays             func(mode uint32, first, n int32)
	readPixels             func(x, y, w, h int32, kind, typ uint32, out uintptr)
	finish                 func()
}

// load makes a context without a surface current on this thread.
func load() (*gl, error) {
	file, err := dl.Open(dl.Spec{Sonames: []string{"libEGL.so.1"}, Package: "libegl1"})
	if err != nil {
		return nil, err
	}
	var procAddress, platformDisplay, initialize, bindAPI, createContext, makeCurrent uintptr
	if err := file.Resolve([]dl.Symbol{
		{Name: "eglGetProcAddress", Addr: &procAddress}, {Name: "eglGetPlatformDisplay", Addr: &platformDisplay},
		{Name: "eglInitialize", Addr: &initialize}, {Name: "eglBindAPI", Addr: &bindAPI},
		{Name: "eglCreateContext", Addr: &createContext}, {Name: "eglMakeCurrent", Addr: &makeCurrent},
	}); err != nil {
		return nil, err
	}
	display, _, _ := purego.SyscallN(platformDisplay, eglSurfaceless, 0, 0)
	if ok, _, _ := purego.SyscallN(initialize, display, 0, 0); display == 0 || uint32(ok) != 1 {
		return nil, fmt.Errorf("EGL without a surface does not start")
	}
	_, _, _ = purego.SyscallN(bindAPI, eglESAPI)
	attribs := dl.Malloc(12)
	defer dl.Free(attribs)
	put32(attribs, 0x3098, 2, eglNone) // EGL_CONTEXT_CLIENT_VERSION
	context, _, _ := purego.SyscallN(createContext, display, 0, 0, attribs)
	if ok, _, _ := purego.SyscallN(makeCurrent, display, 0, 0, context); context == 0 || uint32(ok) != 1 {
		return nil, fmt.Errorf("EGL gives no context of OpenGL ES 2")
	}
	g := &gl{}
	for name, f := range map[string]any{
		"glGetString": &g.getString, "glGetError": &g.getError, "glGenTextures": &g.genTextures, "glBindTexture": &g.bindTexture,
		"glTexParameteri": &g.texParameteri, "glTexImage2D": &g.texImage2D, "glTexSubImage2D": &g.texSubImage2D,
		"glGenFramebuffers": &g.genFramebuffers, "glBindFramebuffer": &g.bindFramebuffer, "glFramebufferTexture2D": &g.framebufferTexture2D,
		"glCheckFramebufferStatus": &g.checkFramebufferStatus, "glGenBuffers": &g.genBuffers, "glBindBuffer": &g.bindBuffer, "glBufferData": &g.bufferData,
		"glCreateShader": &g.createShader, "glShaderSource": &g.shaderSource, "glCompileShader": &g.compileShader, "glGetShaderiv": &g.getShaderiv,
		"glCreateProgram": &g.createProgram, "glAttachShader": &g.attachShader, "glBindAttribLocation": &g.bindAttribLocation,
		"glLinkProgram": &g.linkProgram, "glGetProgramiv": &g.getProgramiv, "glUseProgram": &g.useProgram,
		"glVertexAttribPointer": &g.vertexAttribPointer, "glEnableVertexAttribArray": &g.enableVertexAttrib, "glViewport": &g.viewport,
		"glClearColor": &g.clearColor, "glClear": &g.clear, "glDrawArrays": &g.drawArrays, "glReadPixels": &g.readPixels, "glFinish": &g.finish,
	} {
		text := dl.CString(name)
		addr, _, _ := purego.SyscallN(procAddress, text)
		dl.Free(text)
		if addr == 0 {
			return nil, fmt.Errorf("no function %s", name)
		}
		purego.RegisterFunc(f, addr)
	}
	return g, nil
}
