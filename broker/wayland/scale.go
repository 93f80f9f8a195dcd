package wayland

import (
	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
)

// output is a wl_output, of which only the scale matters: compositors that tell a
// surface its scale need none.
type output struct {
	wl      proto.WlOutput
	version uint32
	scale   int32
}

func (o *output) event(_ wire.ID, _ proto.InterfaceID, m wire.Message) error {
	if m.Opcode != proto.EvWlOutputScale {
		return nil
	}
	var ev proto.WlOutputScaleEvent
	if err := ev.Decode(m); err != nil {
		return err
	}
	o.scale = ev.Factor
	return nil
}

// addOutput binds an output unless surfaces hear of their scale by themselves.
func (se *session) addOutput(name, version uint32) {
	if se.surfaceScales || version < 2 {
		return
	}
	o := &output{version: min(version, 4), scale: 1}
	o.wl = proto.WlOutput(se.objs.add(proto.IWlOutput, o))
	se.registry.Bind(se.out(), name, "wl_output", o.version, wire.ID(o.wl))
	se.outputs[name] = o
}

func (se *session) removeOutput(name uint32) {
	o := se.outputs[name]
	if o == nil {
		return
	}
	delete(se.outputs, name)
	if o.version >= 3 {
		o.wl.Release(se.out())
		se.objs.destroyed(wire.ID(o.wl))
	}
}

// scaling is what a window knows of its scale.
type scaling struct {
	fractional proto.WpFractionalScaleV1 // 0 if the compositor has none
	fraction   uint32                    // wp_fractional_scale_v1.preferred_scale, 0 until it came
	preferred  int32                     // wl_surface.preferred_buffer_scale, 0 until it came
	on         []proto.WlOutput          // outputs that show the surface
}

// maxOutputs bounds the outputs that a window remembers.
const maxOutputs = 64

// scale returns the window's scale in 1/120, by the best source that there is.
func (win *window) scale() uint32 {
	s, scale := &win.scaling, int64(unscaled)
	switch {
	case s.fraction != 0:
		scale = int64(s.fraction)
	case s.preferred > 0:
		scale = int64(s.preferred) * unscaled
	default:
		for _, wl := range s.on {
			for _, o := range win.se.outputs {
				if o.wl == wl {
					scale = max(scale, int64(o.scale)*unscaled)
				}
			}
		}
	}
	return uint32(min(max(scale, minScale), maxScale))
}

// scaleEvent handles what wl_surface and wp_fractional_scale_v1 tell.
func (win *window) scaleEvent(iface proto.InterfaceID, m wire.Message) error {
	s := &win.scaling
	if iface == proto.IWpFractionalScaleV1 {
		var ev proto.WpFractionalScaleV1PreferredScaleEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		s.fraction = ev.Scale
		return nil
	}
	switch m.Opcode {
	case proto.EvWlSurfacePreferredBufferScale:
		var ev proto.WlSurfacePreferredBufferScaleEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		s.preferred = ev.Factor
	case proto.EvWlSurfaceEnter:
		var ev proto.WlSurfaceEnterEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		s.leave(ev.Output)
		if len(s.on) < maxOutputs {
			s.on = append(s.on, ev.Output)
		}
	case proto.EvWlSurfaceLeave:
		var ev proto.WlSurfaceLeaveEvent
		if err := ev.Decode(m); err != nil {
			return err
		}
		s.leave(ev.Output)
	}
	return nil
}

func (s *scaling) leave(o proto.WlOutput) {
	for i := range s.on {
		if s.on[i] == o {
			s.on = append(s.on[:i], s.on[i+1:]...)
			return
		}
	}
}
