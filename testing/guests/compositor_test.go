package guests_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/report"
)

// TestCompositorLife: the compositor hangs, crashes and comes back while the guest
// draws. The guest never notices.
func TestCompositorLife(t *testing.T) {
	r := machine(t)
	check(t, r.vm, startCube)
	r.turns(t, 10)

	t.Run("stopped", func(t *testing.T) {
		if err := r.weston.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		last := r.status()
		for range 5 {
			time.Sleep(time.Second)
			now := r.status()
			if now.Submits == last.Submits || now.Flushes == last.Flushes {
				t.Errorf("within a second of a stopped compositor: %d submits, %d flushes, want some", now.Submits-last.Submits, now.Flushes-last.Flushes)
			}
			last = now
		}
		check(t, r.vm, "true") // the guest is alive
		if err := r.weston.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		r.turns(t, 10)
	})
	t.Run("killed", func(t *testing.T) {
		for range 3 {
			r.weston.Kill()
			gone := r.status()
			time.Sleep(500 * time.Millisecond)
			if now := r.status(); now.Submits == gone.Submits {
				t.Error("no submits while there was no compositor")
			}
			if err := r.weston.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.turns(t, 10)
			img, err := r.shoot(t)()
			if err != nil {
				t.Fatal(err)
			}
			if colours, drawn := report.Colours(img); colours < 50 || drawn < 0.05 {
				t.Errorf("after a restart the compositor shows no cube: %d colours, %.0f %% drawn", colours, 100*drawn)
			}
		}
		if st := r.status(); st.Reconnects < 3 {
			t.Errorf("%d reconnects, want 3 or more", st.Reconnects)
		}
	})
	t.Run("still picture", func(t *testing.T) {
		// What does not change comes back too, without a word from the guest.
		check(t, r.vm, lab.EndKmscube+paintServer)
		paint(t, r.vm, "cursor 400 300 0 0")
		want := withCursor(painted(screenW, screenH), 400, 300)
		showsEventually(t, "before the restart", r.shoot(t), want, blended)
		before, commands := r.footprint(), r.status().Commands
		for range 3 {
			r.weston.Kill()
			if err := r.weston.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			showsEventually(t, "after the restart", r.shoot(t), want, blended)
		}
		r.settlesAt(t, "three compositors", before)
		if now := r.status().Commands; now != commands {
			t.Errorf("the guest sent %d commands meanwhile, want none", now-commands)
		}
	})
}
