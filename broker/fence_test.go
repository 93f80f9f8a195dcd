package broker

import (
	"testing"

	"pgregory.net/rapid"
)

// TestTimelineOrder: whatever signals when, commands complete in the order of
// their submission, each once, and none before its fence.
func TestTimelineOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tl timeline
		signalled := map[uint32]uint32{} // by context, newest id
		type sent struct{ ctx, id uint32 }
		var all []sent
		next, id := 0, rapid.Uint32().Draw(t, "first id") // ids wrap around
		base := id
		complete := func() {
			for {
				f, ok := tl.pop()
				if !ok {
					return
				}
				want := all[next]
				if int(f.head) != next%65536 {
					t.Fatalf("command %d completed, want %d", f.head, next)
				}
				if want.id != 0 && int32(signalled[want.ctx]-want.id) < 0 {
					t.Fatalf("command %d completed before its fence", next)
				}
				next++
			}
		}
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			ctx := rapid.Uint32Range(1, 3).Draw(t, "ctx")
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0: // a command with a renderer fence
				id++
				if id == 0 {
					id = 1
				}
				all = append(all, sent{ctx, id})
				tl.push(fence{ctx: ctx, id: id, head: uint16(len(all) - 1)})
			case 1: // one that only waits for its elders
				all = append(all, sent{})
				tl.push(fence{head: uint16(len(all) - 1), done: true})
			case 2:
				at := base + rapid.Uint32Range(0, id-base).Draw(t, "signal")
				if old, ok := signalled[ctx]; !ok || int32(at-old) > 0 {
					signalled[ctx] = at
					tl.signal(ctx, at)
				}
			}
			complete()
		}
		tl.signalAll()
		for c := range signalled {
			signalled[c] = id
		}
		for c := uint32(1); c <= 3; c++ {
			signalled[c] = id
		}
		complete()
		if next != len(all) || !tl.empty() {
			t.Fatalf("%d of %d commands completed", next, len(all))
		}
	})
}
