package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// cycleTimeout bounds a run of cycles under emulation.
const cycleTimeout = 15 * time.Minute

// cycles makes n blobs and looks for what is left of them.
func (p *programs) cycles(ctx context.Context, r *rig, n int, rep *reportJSON) error {
	ctx, cancel := context.WithTimeout(ctx, cycleTimeout)
	defer cancel()
	fmt.Printf("%d blobs made, mapped and dropped by the guest\n", n)
	// The first ones warm up what the kernel and QEMU keep.
	if _, err := r.vm.Check(ctx, "/tmp/blobguest cycle 20 1"); err != nil {
		return err
	}
	run := &cycleJSON{Name: "steady"}
	rep.CycleRuns = append(rep.CycleRuns, run)
	var err error
	if run.Start, err = r.idle(ctx); err != nil {
		return err
	}
	start := time.Now()
	stop := r.watchPeak(run)
	text, err := r.vm.Check(ctx, fmt.Sprintf("/tmp/blobguest cycle %d 2", n))
	stop()
	run.Seconds = time.Since(start).Seconds()
	if err != nil {
		return fmt.Errorf("cycles: %w\n%s", err, r.broker.Log())
	}
	if err := run.add(text); err != nil {
		return err
	}
	return p.endCycles(ctx, r, run, rep)
}

// add adds what blobguest cycle printed.
func (c *cycleJSON) add(text string) error {
	var a struct {
		Cycles int
		Bytes  uint64
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "{") {
			if err := json.Unmarshal([]byte(line), &a); err != nil {
				return err
			}
			c.Cycles += a.Cycles
			c.Bytes += a.Bytes
		}
	}
	return nil
}

// watchPeak notes the most blobs mapped at a time, until stop is called.
func (r *rig) watchPeak(run *cycleJSON) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			if st, err := r.status(); err == nil {
				run.Peak = max(run.Peak, st.Window.Placements)
			}
			select {
			case <-quit:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return func() { close(quit); <-done }
}

// endCycles compares what is left with what was there.
func (p *programs) endCycles(ctx context.Context, r *rig, run *cycleJSON, rep *reportJSON) (err error) {
	if run.End, err = r.settle(ctx, run.Start); err != nil {
		return err
	}
	rep.Cycles += run.Cycles
	rep.LeakedFDs += max(0, run.End.BrokerFDs-run.Start.BrokerFDs) + max(0, run.End.QEMUFDs-run.Start.QEMUFDs)
	if run.End != run.Start {
		rep.problem("%s cycles: at the end %+v, at the start %+v", run.Name, run.End, run.Start)
	}
	if run.Peak == 0 {
		rep.problem("%s cycles: no blob was ever seen mapped", run.Name)
	}
	fmt.Printf("%s: %d cycles with %d resets in %.1f s, at most %d mapped; start %+v, end %+v\n", run.Name, run.Cycles, run.Resets,
		run.Seconds, run.Peak, run.Start, run.End)
	return nil
}

// driverResets and machineResets are how often the device is reset in the middle of
// what the guest asks of it. Most of them meet a request to QEMU on its way.
const (
	driverResets  = 20
	machineResets = 2
)

// resetCycles makes n blobs while the device is reset: by the driver, which
// lets go of the device in the middle, and then by the whole machine.
func (p *programs) resetCycles(ctx context.Context, r *rig, n int, rep *reportJSON) error {
	ctx, cancel := context.WithTimeout(ctx, cycleTimeout)
	defer cancel()
	fmt.Printf("%d blobs with resets thrown in\n", n)
	run := &cycleJSON{Name: "with resets"}
	rep.CycleRuns = append(rep.CycleRuns, run)
	// A machine reset first, so that start and end are both fresh boots.
	if err := r.reset(ctx); err != nil {
		return err
	}
	if _, err := r.vm.Check(ctx, "/tmp/blobguest cycle 20 1"); err != nil {
		return err
	}
	var err error
	if run.Start, err = r.idle(ctx); err != nil {
		return err
	}
	start := time.Now()
	stop := r.watchPeak(run)
	err = r.cyclesAndResets(ctx, n, run)
	stop()
	run.Seconds = time.Since(start).Seconds()
	if err != nil {
		return fmt.Errorf("cycles with resets: %w\n%s\n%s", err, r.vm.Console(), r.broker.Log())
	}
	return p.endCycles(ctx, r, run, rep)
}

func (r *rig) cyclesAndResets(ctx context.Context, n int, run *cycleJSON) error {
	// The driver lets go of the device while blobs are mapped.
	part := n / (driverResets + machineResets)
	for i := range driverResets {
		_, err := r.vm.Check(ctx, fmt.Sprintf(`/tmp/blobguest cycle 1000000 %d >/tmp/cycle.log 2>&1 &
pid=$!; sleep 0.%02d; cd /sys/bus/virtio/drivers/virtio_gpu; dev=$(ls -d virtio[0-9]*)
echo $dev > unbind; kill $pid; wait $pid; sleep 0.2; echo $dev > bind
for i in $(seq 100); do [ -e /dev/dri/card0 ] && break; sleep 0.1; done; [ -e /dev/dri/card0 ]`, i+3, 20+i*37%70))
		if err != nil {
			return err
		}
		run.Resets++
		text, err := r.vm.Check(ctx, fmt.Sprintf("/tmp/blobguest cycle %d %d", part, i+100))
		if err != nil {
			return err
		}
		if err := run.add(text); err != nil {
			return err
		}
	}
	// The machine is reset while blobs are mapped.
	for i := range machineResets {
		if _, err := r.vm.Check(ctx, fmt.Sprintf("/tmp/blobguest cycle 1000000 %d >/tmp/cycle.log 2>&1 & sleep 0.6", i+200)); err != nil {
			return err
		}
		if err := r.reset(ctx); err != nil {
			return err
		}
		run.Resets++
		text, err := r.vm.Check(ctx, fmt.Sprintf("/tmp/blobguest cycle %d %d", max(part, n-run.Cycles), i+300))
		if err != nil {
			return err
		}
		if err := run.add(text); err != nil {
			return err
		}
	}
	return nil
}

// reset resets the machine and loads the driver again.
func (r *rig) reset(ctx context.Context) error {
	boots := r.vm.Boots()
	if _, err := r.vm.QMP(ctx, "system_reset", nil); err != nil {
		return err
	}
	if err := r.vm.WaitBoot(ctx, boots+1); err != nil {
		return err
	}
	return r.load(ctx)
}
