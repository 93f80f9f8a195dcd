package virgl

import (
	"github.com/gpubroker/gpubroker/virgl/dl"
)

// libSpec finds the library. The soname is the same in every release from 0.10
// to 1.3.
var libSpec = dl.Spec{Sonames: []string{"libvirglrenderer.so.1"}, Package: "libvirglrenderer1"}

// glSpecs are what libepoxy, which libvirglrenderer uses, loads when it is first
// needed. It aborts the process if one is missing, so they are looked for before.
var glSpecs = []dl.Spec{
	{Sonames: []string{"libEGL.so.1"}, Package: "libegl1"},
	{Sonames: []string{"libGL.so.1", "libOpenGL.so.0"}, Package: "libgl1"},
}

// lib is libvirglrenderer: the addresses of its functions, named after them
// without virgl_renderer_ (virglrenderer.h). Every one is called on the render
// thread only.
type lib struct {
	file *dl.Library

	init, cleanup, poll, getPollFD, forceCtx0                                    uintptr
	getCapSet, fillCaps                                                          uintptr
	contextCreateWithFlags, contextDestroy, ctxAttachResource, ctxDetachResource uintptr
	resourceCreate, resourceUnref, resourceAttachIOV, resourceDetachIOV          uintptr
	transferReadIOV, transferWriteIOV, submitCmd, createFence                    uintptr
	resourceGetInfo, getFDForTexture2, setDebugCallback                          uintptr

	// Since 1.0; 0 in older libraries.
	resourceGetInfoExt, setLogCallback uintptr
}

func loadLib() (*lib, error) {
	file, err := dl.Open(libSpec)
	if err != nil {
		return nil, libraryErr(err)
	}
	for _, s := range glSpecs {
		if _, err := dl.Open(s); err != nil {
			return nil, libraryErr(err)
		}
	}
	l := &lib{file: file}
	err = file.Resolve([]dl.Symbol{
		{Name: "virgl_renderer_init", Addr: &l.init},
		{Name: "virgl_renderer_cleanup", Addr: &l.cleanup},
		{Name: "virgl_renderer_poll", Addr: &l.poll},
		{Name: "virgl_renderer_get_poll_fd", Addr: &l.getPollFD},
		{Name: "virgl_renderer_force_ctx_0", Addr: &l.forceCtx0},
		{Name: "virgl_renderer_get_cap_set", Addr: &l.getCapSet},
		{Name: "virgl_renderer_fill_caps", Addr: &l.fillCaps},
		{Name: "virgl_renderer_context_create_with_flags", Addr: &l.contextCreateWithFlags},
		{Name: "virgl_renderer_context_destroy", Addr: &l.contextDestroy},
		{Name: "virgl_renderer_ctx_attach_resource", Addr: &l.ctxAttachResource},
		{Name: "virgl_renderer_ctx_detach_resource", Addr: &l.ctxDetachResource},
		{Name: "virgl_renderer_resource_create", Addr: &l.resourceCreate},
		{Name: "virgl_renderer_resource_unref", Addr: &l.resourceUnref},
		{Name: "virgl_renderer_resource_attach_iov", Addr: &l.resourceAttachIOV},
		{Name: "virgl_renderer_resource_detach_iov", Addr: &l.resourceDetachIOV},
		{Name: "virgl_renderer_transfer_read_iov", Addr: &l.transferReadIOV},
		{Name: "virgl_renderer_transfer_write_iov", Addr: &l.transferWriteIOV},
		{Name: "virgl_renderer_submit_cmd", Addr: &l.submitCmd},
		{Name: "virgl_renderer_create_fence", Addr: &l.createFence},
		{Name: "virgl_renderer_resource_get_info", Addr: &l.resourceGetInfo},
		{Name: "virgl_renderer_get_fd_for_texture2", Addr: &l.getFDForTexture2},
		{Name: "virgl_set_debug_callback", Addr: &l.setDebugCallback},
		{Name: "virgl_renderer_resource_get_info_ext", Addr: &l.resourceGetInfoExt, Optional: true},
		{Name: "virgl_set_log_callback", Addr: &l.setLogCallback, Optional: true},
	})
	if err != nil {
		return nil, libraryErr(err)
	}
	return l, nil
}
