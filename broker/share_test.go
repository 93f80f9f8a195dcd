package broker

import (
	"errors"
	"slices"
	"testing"

	"github.com/gpubroker/gpubroker/virgl"
	"github.com/gpubroker/gpubroker/virgl/virgltest"
)

// TestRendererShare: two views of one renderer have ids, fences and a reset of their own.
func TestRendererShare(t *testing.T) {
	base := &FenceRelay{}
	fake, err := virgltest.New(virgltest.Config{OnFence: base.Signal, ManualFences: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fake.Close() }()
	type fence struct{ ctx, id uint32 }
	var heard [2][]fence
	relays := [2]*FenceRelay{}
	for i := range relays {
		relays[i] = &FenceRelay{f: func(ctx, id uint32) { heard[i] = append(heard[i], fence{ctx, id}) }}
	}
	share := newRendererShare(fake, relays[0], relays[1])
	base.f = share.signal
	views := [2]*rendererView{share.low, share.high}
	ids := [2]uint32{1, ownIDs + 1}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	fill := func(i int) {
		must(views[i].CreateContext(ids[i], 0, "view"))
		must(views[i].CreateResource(&virgl.ResourceArgs{ID: ids[i], Target: 2, Format: 1, Width: 4, Height: 4, Depth: 1, ArraySize: 1}))
		must(views[i].CreateBlob(&virgl.BlobArgs{ID: ids[i] + 1, Ctx: ids[i], Mem: 2, BlobID: 1, Size: 4096}, nil))
	}
	for i := range views {
		fill(i)
		other := ids[1-i]
		for what, err := range map[string]error{
			"context":  views[i].CreateContext(other+8, 0, ""),
			"resource": views[i].CreateResource(&virgl.ResourceArgs{ID: other + 8, Target: 2, Format: 1, Width: 4, Height: 4}),
			"blob":     views[i].CreateBlob(&virgl.BlobArgs{ID: other + 8, Ctx: ids[i], Mem: 2, BlobID: 1, Size: 4096}, nil),
		} {
			if !errors.Is(err, virgl.ErrInvalid) {
				t.Errorf("view %d makes a %s of the other's: %v", i, what, err)
			}
		}
		must(views[i].CreateFence(ids[i], 10))
		if st := views[i].Stats(); st != (virgl.Stats{Contexts: 1, Resources: 2, FencesPending: 1}) {
			t.Errorf("view %d: %+v", i, st)
		}
	}
	must(views[0].CreateFence(0, 11))
	fake.Signal(-1)
	fake.Poll()
	want := [2][]fence{{{1, 10}, {0, 11}}, {{ownIDs + 1, 10}}}
	for i := range want {
		if !slices.Equal(heard[i], want[i]) {
			t.Errorf("view %d heard %v, want %v", i, heard[i], want[i])
		}
	}
	// A reset of the guest's device leaves the other alone, and its fences die.
	must(views[0].CreateFence(ids[0], 12))
	must(views[1].CreateFence(ids[1], 11))
	views[0].Reset()
	if got := fake.Stats(); got.Contexts != 1 || got.Resources != 2 {
		t.Errorf("after one's reset: %+v", got)
	}
	fill(0)
	must(views[0].CreateFence(ids[0], 13))
	fake.Signal(-1)
	fake.Poll()
	want = [2][]fence{append(want[0], fence{1, 13}), append(want[1], fence{ownIDs + 1, 11})}
	for i := range want {
		if !slices.Equal(heard[i], want[i]) {
			t.Errorf("view %d heard %v, want %v", i, heard[i], want[i])
		}
		views[i].Reset()
	}
	if got := fake.Stats(); got.Contexts+got.Resources > 0 {
		t.Errorf("left: %+v", got)
	}
	if m := fake.Misuse(); len(m) > 0 {
		t.Error(m)
	}
}
