package input

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// evdev is a guest: it applies events as Linux' input core does, and complains of
// what the core would drop.
type evdev struct {
	keys    map[uint16]bool // down
	abs     map[uint16]int32
	slot    int32                      // -1: the guest woke up with one that the device does not know
	fingers map[int32]bool             // slots with a finger
	places  map[int32]map[uint16]int32 // by slot; they stay when the finger is lifted
	wheel   map[uint16]int32
	inFrame int
	strokes []string
}

func newEvdev() *evdev {
	return &evdev{keys: map[uint16]bool{}, abs: map[uint16]int32{}, fingers: map[int32]bool{}, places: map[int32]map[uint16]int32{}, wheel: map[uint16]int32{}, slot: -1}
}

func (g *evdev) apply(e Event) error {
	v := int32(e.Value)
	g.inFrame++
	switch e.Type {
	case EvSyn:
		if g.inFrame == 1 {
			return fmt.Errorf("empty frame")
		}
		g.inFrame = 0
	case EvKey:
		if g.keys[e.Code] == (v != 0) {
			return fmt.Errorf("key %d is %d already", e.Code, v)
		}
		if v != 0 {
			g.keys[e.Code] = true
		} else {
			delete(g.keys, e.Code)
		}
		g.strokes = append(g.strokes, fmt.Sprint(e.Code, v))
	case EvRel:
		if v == 0 {
			return fmt.Errorf("no turn of axis %d", e.Code)
		}
		g.wheel[e.Code] += v
	case EvAbs:
		return g.axis(e.Code, v)
	default:
		return fmt.Errorf("type %d", e.Type)
	}
	return nil
}

func (g *evdev) axis(code uint16, v int32) error {
	most := int32(AxisMax)
	switch code {
	case AbsSlot:
		if v == g.slot {
			return fmt.Errorf("slot %d again", v)
		}
		g.slot = v
		return nil
	case AbsTrackingID:
		if (v >= 0) == g.fingers[g.slot] {
			return fmt.Errorf("slot %d: tracking id %d, finger %t", g.slot, v, g.fingers[g.slot])
		}
		if v < 0 {
			delete(g.fingers, g.slot)
			return nil
		}
		g.fingers[g.slot] = true
		return nil
	case AbsMTX, AbsMTY:
		if !g.fingers[g.slot] {
			return fmt.Errorf("slot %d moves without a finger", g.slot)
		}
		if g.places[g.slot] == nil {
			g.places[g.slot] = map[uint16]int32{}
		}
		g.places[g.slot][code] = v
	default:
		if old, ok := g.abs[code]; ok && old == v {
			return fmt.Errorf("axis %d is %d already", code, v)
		}
		g.abs[code] = v
	}
	if v < 0 || v > most {
		return fmt.Errorf("axis %d: %d", code, v)
	}
	return nil
}

// TestModel does random things with queues that are much too small, and a guest that
// takes events at random moments.
func TestModel(t *testing.T) {
	t.Run("main", rapid.MakeCheck(func(t *rapid.T) { model(t, Main) }))
	t.Run("touch", rapid.MakeCheck(func(t *rapid.T) { model(t, Touch) }))
}

func model(t *rapid.T, kind Kind) {
	smallest := map[Kind]int{Main: 16, Touch: 64}[kind]
	size := smallest << rapid.IntRange(0, 4).Draw(t, "size")
	s := newSource(kind, size, func() {})
	g := newEvdev()
	s.setLive(true)
	live := true
	pos := nowhere
	var strokes []string // accepted, in order
	var turned [2]int32
	fingers := map[uint8]point{} // accepted
	take := func(n int) {
		for ; n > 0 && live; n-- {
			e, ok := s.next()
			if !ok {
				return
			}
			s.taken()
			if err := g.apply(e); err != nil {
				t.Fatalf("%+v: %v", e, err)
			}
		}
	}
	coord := rapid.Custom(func(t *rapid.T) point {
		return point{rapid.Int32Range(0, AxisMax).Draw(t, "x"), rapid.Int32Range(0, AxisMax).Draw(t, "y")}
	})
	key := func(code uint16, down bool) {
		was := s.held[code]
		s.key(code, down)
		if !down && s.held[code] {
			t.Fatalf("key %d was not released", code)
		}
		if s.held[code] != was {
			v := 0
			if down {
				v = 1
			}
			strokes = append(strokes, fmt.Sprint(code, v))
		}
	}
	touch := func(n uint8, p point, down bool) {
		s.finger(n, p, down)
		switch c := s.touch.slots[n]; {
		case !down && c.down:
			t.Fatalf("finger %d was not lifted", n)
		case c.down:
			fingers[n] = p
		default:
			delete(fingers, n)
		}
	}
	mainOps := map[string]func(*rapid.T){
		"key": func(t *rapid.T) {
			key(rapid.SampledFrom([]uint16{1, 30, 31, 42, BtnLeft, BtnRight, 0x2bf}).Draw(t, "code"), rapid.Bool().Draw(t, "down"))
		},
		"many keys": func(t *rapid.T) {
			down := rapid.Bool().Draw(t, "down")
			for code := range uint16(60) {
				key(60+code, down)
			}
		},
		"move": func(t *rapid.T) {
			pos = coord.Draw(t, "to")
			s.move(pos)
		},
		"scroll": func(t *rapid.T) {
			v, h := rapid.Int32Range(-200, 200).Draw(t, "v"), rapid.Int32Range(-200, 200).Draw(t, "h")
			if s.scroll(v, h); live {
				turned[0] -= v
				turned[1] += h
			}
		},
	}
	touchOps := map[string]func(*rapid.T){
		"finger": func(t *rapid.T) {
			touch(rapid.Uint8Range(0, Slots-1).Draw(t, "slot"), coord.Draw(t, "at"), rapid.IntRange(0, 3).Draw(t, "down") > 0)
		},
		"lift all": func(*rapid.T) {
			for n := range uint8(Slots) {
				touch(n, point{}, false)
			}
		},
	}
	ops := map[string]func(*rapid.T){
		"frame": func(*rapid.T) { s.frame() },
		"take":  func(t *rapid.T) { take(rapid.IntRange(1, 40).Draw(t, "n")) },
		"stop or cont": func(t *rapid.T) {
			live = rapid.Bool().Draw(t, "live")
			s.setLive(live)
		},
		"": func(t *rapid.T) {
			if free, need := s.q.free(), s.reserve(); free < need {
				t.Fatalf("room for %d events, %d may be needed", free, need)
			}
		},
	}
	maps.Copy(ops, map[Kind]map[string]func(*rapid.T){Main: mainOps, Touch: touchOps}[kind])
	t.Repeat(ops)

	// The guest catches up.
	live = true
	s.setLive(true)
	for range 3 { // a frame whose movement did not fit needs the room of another
		s.frame()
		take(1 << 20)
	}
	if kind == Main && !slices.Equal(g.strokes, strokes) {
		t.Fatalf("keys %v, want %v", g.strokes, strokes)
	}
	if kind == Main && pos != nowhere && (g.abs[AbsX] != pos.x || g.abs[AbsY] != pos.y) {
		t.Fatalf("pointer at %v, want %v", g.abs, pos)
	}
	for i, code := range []uint16{RelWheelHiRes, RelHWheelHiRes} {
		if g.wheel[code] != turned[i] {
			t.Fatalf("wheel %d turned by %d, want %d", i, g.wheel[code], turned[i])
		}
	}
	if len(g.fingers) != len(fingers) {
		t.Fatalf("fingers %v, want %v", g.fingers, fingers)
	}
	for n, p := range fingers {
		if got := g.places[int32(n)]; !g.fingers[int32(n)] || got[AbsMTX] != p.x || got[AbsMTY] != p.y {
			t.Fatalf("finger %d at %v, want %v", n, got, p)
		}
	}
	// And all is let go.
	s.releaseAll()
	take(1 << 20)
	if len(g.keys)+len(g.fingers) > 0 {
		t.Fatalf("still down: %v, %v", g.keys, g.fingers)
	}
	if c := s.stats(); c.Waiting != 0 {
		t.Fatalf("%+v", c)
	}
}
