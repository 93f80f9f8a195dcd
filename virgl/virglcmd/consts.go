package virglcmd

// command is a virgl_context_cmd.
type command uint32

const (
	cmdCreateObject       command = 1
	cmdBindObject         command = 2
	cmdDestroyObject      command = 3
	cmdSetViewportState   command = 4
	cmdSetFramebuffer     command = 5
	cmdSetVertexBuffers   command = 6
	cmdClear              command = 7
	cmdDrawVBO            command = 8
	cmdInlineWrite        command = 9
	cmdSetConstantBuffer  command = 12
	cmdSetScissorState    command = 15
	cmdResourceCopyRegion command = 17
	cmdSetSubCtx          command = 28
	cmdCreateSubCtx       command = 29
	cmdDestroySubCtx      command = 30
	cmdBindShader         command = 31
	cmdPipeResourceCreate command = 48
)

// Object is the type of an object that a stream creates, binds or destroys.
type Object uint32

// The object types used here (virgl_object_type).
const (
	ObjectBlend          Object = 1
	ObjectRasterizer     Object = 2
	ObjectDSA            Object = 3
	ObjectShader         Object = 4
	ObjectVertexElements Object = 5
	ObjectSurface        Object = 8
)

// Stage is a shader stage (enum pipe_shader_type).
type Stage uint32

// The shader stages.
const (
	StageVertex   Stage = 0
	StageFragment Stage = 1
)

// Texture targets (enum pipe_texture_target) of CREATE_3D.
const (
	TargetBuffer    = 0
	TargetTexture2D = 2
)

// Bind flags (VIRGL_BIND_*) of CREATE_3D.
const (
	BindDepthStencil  = 1 << 0
	BindRenderTarget  = 1 << 1
	BindSamplerView   = 1 << 3
	BindVertexBuffer  = 1 << 4
	BindDisplayTarget = 1 << 7
	BindCursor        = 1 << 16
	BindScanout       = 1 << 18
	BindShared        = 1 << 20
)

// Flags (VIRGL_RESOURCE_FLAG_*) of a buffer that the guest maps.
const (
	FlagMapPersistent = 1 << 1
	FlagMapCoherent   = 1 << 2
)

// Formats (enum virgl_formats). Names list the components in memory order.
const (
	FormatB8G8R8A8          = 1
	FormatB8G8R8X8          = 2
	FormatA8R8G8B8          = 3
	FormatX8R8G8B8          = 4
	FormatB5G6R5            = 7
	FormatR10G10B10A2       = 8
	FormatR32G32B32A32Float = 31
	FormatR8                = 64
	FormatR8G8B8A8          = 67
	FormatX8B8G8R8          = 68
	FormatR16G16B16A16Float = 94
	FormatA8B8G8R8          = 121
	FormatB10G10R10A2       = 131
	FormatR8G8B8X8          = 134
)

// What Clear clears (PIPE_CLEAR_*).
const (
	ClearDepth   = 1 << 0
	ClearStencil = 1 << 1
	ClearColor0  = 1 << 2
)

// Primitive is what vertices form (enum pipe_prim_type).
type Primitive uint32

// The primitives used here.
const (
	Triangles     Primitive = 4
	TriangleStrip Primitive = 5
)
