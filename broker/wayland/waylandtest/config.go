package waylandtest

import (
	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Layout is a format and modifier that the compositor offers for dma-bufs.
type Layout struct {
	Fourcc   dmabuf.Fourcc
	Modifier dmabuf.Modifier
}

// Answer is how the compositor reacts to the creation of a dma-buf wl_buffer.
type Answer int

// The answers.
const (
	Created Answer = iota
	Failed
	Never     // no event at all
	KillsConn // a protocol error on the params object
)

// Config says what the compositor offers and how it behaves. The zero Config has
// wl_compositor, wl_subcompositor, wl_shm, xdg_wm_base and wp_viewporter, answers
// at once, and releases a buffer when another takes its place.
type Config struct {
	DMABuf       uint32   // version of zwp_linux_dmabuf_v1, 0 for none
	Layouts      []Layout // offered; from version 4 on in one tranche each
	ShmFormats   []dmabuf.Fourcc
	NoViewporter bool
	NoXdgShell   bool
	Seat         bool                   // a seat with a pointer
	SeatVersion  uint32                 // of that seat, 7 if 0
	Devices      proto.WlSeatCapability // what the seat has besides the pointer
	Compositor   uint32                 // version of wl_compositor, 6 if 0
	Fractional   uint32                 // wp_fractional_scale_v1.preferred_scale of every surface; 0 for no such global
	Scale        int32                  // of the one wl_output, and preferred_buffer_scale; 0 for no output
	Decorations  bool
	Security     bool               // wp_security_context_manager_v1
	Keymap       string             // of keyboards
	Presentation bool               // wp_presentation and wp_commit_timing_manager_v1
	Clock        uint32             // of wp_presentation, CLOCK_REALTIME if 0
	PresentedAt  int64              // what it reports, in nanoseconds
	Selection    bool               // wl_data_device_manager and the primary selection
	ICC          string             // wp_color_manager_v1, whose outputs have this profile; none if empty
	More         []Global           // announced, too; those of known interfaces can be bound
	Sync         *dmabuf.SyncDevice // for wp_linux_drm_syncobj_v1, which there is none without

	OnImport      func(l Layout) Answer // nil: Created
	EarlyRelease  bool                  // release shm buffers at commit, as compositors that copy do
	HoldReleases  bool                  // until Release
	HoldFrames    bool                  // until Frame
	HoldConfigure bool                  // until Configure
}

// Global is an interface with a version.
type Global struct {
	Name    string
	Version uint32
}

// Buffer is a wl_buffer.
type Buffer struct {
	ID       uint32
	Shm      bool
	Layout   Layout // Modifier is LINEAR for shared memory
	W, H     int32
	Offset   int32
	Stride   int32
	Planes   int
	Flags    uint32 // of zwp_linux_buffer_params_v1
	Released int    // release events sent

	mem       *dmabuf.FD // plane 0 or the pool; owned
	destroyed bool
	release   *syncPoint // of the last commit, nil for an event
}

// Child is a mapped sub-surface at its parent's commit.
type Child struct {
	X, Y   int32
	Buffer *Buffer
	Source [4]float64
	Dest   [2]int32
	Below  bool // below the parent
	Pixel  uint32
}

// Geometry is an xdg_surface.set_window_geometry.
type Geometry struct{ X, Y, W, H int32 }

// Commit is one wl_surface.commit of a surface that is no sub-surface, with the
// state that it made current.
type Commit struct {
	Surface   uint32
	Role      string // "toplevel" or ""
	Title     string
	AppID     string
	Explicit  bool    // with an acquire and a release point
	Acquired  bool    // the acquire point had signalled already
	Attached  bool    // this commit attached Buffer, or nothing if that is nil
	Buffer    *Buffer // current content
	Damage    []display.Rect
	OnSurface bool // there was damage in surface coordinates, too
	Transform proto.WlOutputTransform
	Source    [4]float64 // viewport source x, y, w, h; -1 each when unset
	Dest      [2]int32   // viewport destination; -1 each when unset
	Scale     int32      // buffer scale
	Opaque    display.Rect
	Frame     bool // a frame callback was asked for
	Children  []Child
	MinW      int32
	MinH      int32
	MaxW      int32
	MaxH      int32
	Geometry  Geometry
	Full      bool   // set_fullscreen was asked for
	Pixel     uint32 // first pixel of the buffer as a little-endian word, for shared memory
}
