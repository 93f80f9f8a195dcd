package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/hostile"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/report"
)

// GuestKills is about a real guest that runs kmscube while its broker's worker, or the
// compositor, is killed.
type GuestKills struct {
	Of        string  `json:"of"` // "worker" or "compositor"
	Kills     int     `json:"kills"`
	Alive     int     `json:"alive"`     // kills after which the guest ran a program
	CameBack  int     `json:"came_back"` // kills after which frames reached the compositor
	Looked    int     `json:"looked"`    // screenshots taken after a kill
	Seen      int     `json:"seen"`      // of these, those that showed the cube
	SlowestMS int64   `json:"slowest_ms"`
	Seconds   float64 `json:"seconds"`
	FDs       [2]int  `json:"supervisor_fds"` // after the first tenth and at the end
	RSS       [2]int  `json:"supervisor_rss_kib"`
}

// lookEvery is after how many kills the compositor's picture is looked at.
const lookEvery = 10

// guestBack is how long an emulated guest may take to show a new program's frames.
const guestBack = 60 * time.Second

// startCube starts kmscube anew: the one before has lost its context.
var startCube = lab.StartKmscube("/dev/dri/card0")

// cubeRig is a supervised broker, its compositor and a guest.
type cubeRig struct {
	o      Options
	rep    *Report
	rnd    *rand.Rand
	weston *lab.Compositor
	broker *brokerproc.Broker
	vm     *lab.VM
}

func guestKills(ctx context.Context, o Options, rep *Report) (err error) {
	r := &cubeRig{o: o, rep: rep, rnd: rand.New(rand.NewPCG(o.Seed, 2))}
	if r.weston, err = o.Root.Weston(ctx, lab.WestonOptions{W: 640, H: 480}); err != nil {
		return err
	}
	defer r.weston.Stop()
	// The log level hides what each kill says.
	if r.broker, err = brokerproc.Start(ctx, o.Root, brokerproc.Options{Binary: o.Binary, Deadly: true, Bind: []string{r.weston.RuntimeDir}, Env: r.weston.Env(),
		Args: []string{"--quarantine", "0", "--virgl=on", "--display", "wayland", "--wayland-display", r.weston.Socket(),
			"--size", "640x480", "--fullscreen", "--log-level", "error"}}); err != nil {
		return err
	}
	err = r.kill(ctx)
	if _, serr := r.broker.Stop(); serr != nil {
		rep.problem("kills under a guest: the broker's end: %v", serr)
	}
	return err
}

func (r *cubeRig) kill(ctx context.Context) (err error) {
	r.vm, err = r.o.Root.StartVM(ctx, lab.VMConfig{Devices: []string{
		"-chardev", "socket,id=gpu,path=" + r.broker.Socket, "-device", "vhost-user-gpu-pci,chardev=gpu"}})
	if err != nil {
		return err
	}
	defer r.vm.Close()
	if err := r.vm.WaitBoot(ctx, 1); err != nil {
		return err
	}
	if _, err := r.vm.Check(ctx, "modprobe virtio_gpu; for i in $(seq 100); do [ -e /dev/dri/card0 ] && break; sleep 0.1; done\n"+startCube); err != nil {
		return err
	}
	if err := r.back(0); err != nil {
		return fmt.Errorf("kmscube in the guest: %w\n%s", err, r.vm.Console())
	}
	if err := r.kills(ctx, "worker", r.killWorker); err != nil {
		return err
	}
	return r.kills(ctx, "compositor", r.killWeston)
}

// kills kills one thing again and again.
func (r *cubeRig) kills(ctx context.Context, of string, kill func(context.Context) error) (err error) {
	k := &GuestKills{Of: of}
	r.rep.Guest = append(r.rep.Guest, k)
	begun := time.Now()
	defer func() { k.Seconds = time.Since(begun).Seconds() }()
	warm := r.o.GuestKills / 10
	for i := range r.o.GuestKills {
		time.Sleep(time.Duration(r.rnd.IntN(400)) * time.Millisecond)
		k.Kills++
		at := time.Now()
		if err := kill(ctx); err != nil {
			r.rep.problem("kill %d of the %s under a guest: %v\n%s", i, of, err, r.broker.Log())
			return nil
		}
		k.CameBack++
		k.SlowestMS = max(k.SlowestMS, time.Since(at).Milliseconds())
		if _, err := r.vm.Check(ctx, "true"); err != nil {
			r.rep.problem("the guest, after kill %d of the %s: %v\n%s", i, of, err, r.vm.Console())
			return nil
		}
		k.Alive++
		if i%lookEvery == 0 {
			if err := r.look(ctx, k); err != nil {
				return err
			}
		}
		late := 1
		if i <= warm {
			late = 0
		}
		if k.FDs[late], err = brokerproc.OpenFDs(r.broker.Program()); err != nil {
			return err
		}
		if k.RSS[late], err = hostile.RSS(r.broker.Program()); err != nil {
			return err
		}
	}
	fmt.Fprintf(r.o.Log, "%d kills of the %s under a guest: %d times it lived and %d times frames came back, slowest %d ms; the supervisor holds %d descriptors, then %d\n",
		k.Kills, of, k.Alive, k.CameBack, k.SlowestMS, k.FDs[0], k.FDs[1])
	if k.Seen != k.Looked {
		r.rep.problem("kills of the %s under a guest: %d of %d screenshots show the cube", of, k.Seen, k.Looked)
	}
	if d := k.FDs[1] - k.FDs[0]; d > 4 { // a worker's start or a status connection holds some
		r.rep.problem("kills of the %s under a guest: the supervisor has %d descriptors more", of, d)
	}
	if d := k.RSS[1] - k.RSS[0]; d > rssSlack {
		r.rep.problem("kills of the %s under a guest: the supervisor has %d KiB more resident memory", of, d)
	}
	return nil
}

// killWorker kills what renders, starts a program and waits for its frames.
func (r *cubeRig) killWorker(ctx context.Context) error {
	st, err := r.broker.Status()
	if err != nil {
		return err
	}
	worker := r.broker.Worker()
	if worker == 0 {
		return errors.New("the supervisor has no worker")
	}
	if err := syscall.Kill(worker, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill the worker: %w", err)
	}
	if _, err := r.vm.Check(ctx, startCube); err != nil {
		return err
	}
	return r.back(st.PID)
}

func (r *cubeRig) killWeston(ctx context.Context) error {
	r.weston.Kill()
	time.Sleep(time.Duration(r.rnd.IntN(200)) * time.Millisecond)
	if err := r.weston.Restart(ctx); err != nil {
		return err
	}
	return r.back(0)
}

// cubeFrames is how many frames and streams of commands are certainly the cube's: its
// start and the console come before.
const cubeFrames = 20

// back waits for frames, of another worker than the one that was.
func (r *cubeRig) back(was int) error {
	var pid int
	var from, submits uint64
	for end := time.Now().Add(guestBack); ; time.Sleep(10 * time.Millisecond) {
		st, err := r.broker.Status()
		if err == nil && st.PID != was { // the socket is away while no worker is there
			n := st.Frames.Shm + st.Frames.DMABuf
			if st.PID != pid {
				pid, from, submits = st.PID, n, st.Submits
			}
			if st.Submits < submits+cubeFrames {
				from = n // not the cube's
			} else if n >= from+cubeFrames {
				return nil
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("no frames within %v (worker %d, before it %d, status: %v)", guestBack, pid, was, err)
		}
	}
}

// look takes a screenshot and says whether the cube is there.
func (r *cubeRig) look(ctx context.Context, k *GuestKills) error {
	shot, err := r.weston.Screenshot(ctx)
	if err != nil {
		return err
	}
	k.Looked++
	colours, drawn := report.Colours(shot)
	if colours >= 50 && drawn >= 0.05 {
		k.Seen++
		return nil
	}
	fmt.Fprintf(os.Stderr, "the screenshot after kill %d of the %s shows no cube: %d colours, %.0f %% drawn\n", k.Kills, k.Of, colours, 100*drawn)
	return nil
}
