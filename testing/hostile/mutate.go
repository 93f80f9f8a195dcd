package hostile

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
)

// MutationReport is about mutated traffic.
type MutationReport struct {
	Seed     uint64       `json:"seed"`
	Seconds  float64      `json:"seconds"`
	Traffic  []string     `json:"traffic"` // what it started from
	Sessions int          `json:"sessions"`
	Commands int          `json:"commands"`
	Answered int          `json:"answered"` // sessions after which good commands were answered
	Crashes  []CrashPlace `json:"crashes"`  // in the renderer's libraries, by place
}

// CrashPlace is a place in a C library where mutated streams ended the broker.
type CrashPlace struct {
	Place    string `json:"place"`
	Count    int    `json:"count"`
	Traffic  string `json:"traffic"`  // that the first began as
	Commands int    `json:"commands"` // of the reduced traffic
	File     string `json:"file"`     // the reduced traffic
	Log      string `json:"log"`
}

// errCrash says that the broker ended in a C library.
var errCrash = errors.New("the renderer crashed")

// mutate sends mutated traffic until the time is up.
func (r *runner) mutate(ctx context.Context) error {
	all, err := Traffics()
	if err != nil {
		return err
	}
	var names []string
	var other []Record
	for name, list := range all {
		names = append(names, name)
		other = append(other, list[:min(len(list), 300)]...)
	}
	if r.o.Recording != "" { // strange commands come from the others as well
		list, err := FromRecording(r.o.Recording)
		if err != nil {
			return err
		}
		names, all = []string{r.o.Recording}, map[string][]Record{r.o.Recording: list}
	}
	slices.Sort(names)
	rep := &MutationReport{Seed: r.o.Seed, Traffic: names, Crashes: []CrashPlace{}}
	r.rep.Mutations = rep
	fmt.Fprintf(r.o.Log, "mutations of %s, seed %d\n", strings.Join(names, ", "), r.o.Seed)
	begun := time.Now()
	defer func() { rep.Seconds = time.Since(begun).Seconds() }()
	for n := uint64(0); time.Since(begun) < r.o.Mutate && ctx.Err() == nil; n++ {
		m := mutator{rnd: rand.New(rand.NewPCG(r.o.Seed, n)), other: other}
		name := names[m.rnd.IntN(len(names))]
		session := m.session(all[name])
		rep.Sessions++
		rep.Commands += len(session)
		err := r.play(session)
		if err == nil {
			rep.Answered++
			continue
		}
		if err := r.sessionFailed(ctx, rep, name, n, session, err); err != nil {
			return err
		}
	}
	return nil
}

// play sends a session to a VM of its own and looks at the broker afterwards.
func (r *runner) play(session []Record) error {
	r.late.Store(false)
	watch := time.AfterFunc(caseTime, func() { r.late.Store(true); r.target.Kill() })
	defer watch.Stop()
	err := r.playOn(session)
	if r.late.Load() {
		return fmt.Errorf("no end within %v", caseTime)
	}
	if err != nil {
		if r.exited() && r.target.Place(r.target.Log()) != "" {
			return errCrash
		}
		return err
	}
	n, err := r.target.Leaked()
	if err == nil && n > 0 {
		r.rep.LeakedFDs += n
		r.target.fds += n
		err = fmt.Errorf("%w: %d", errLeak, n)
	}
	return err
}

func (r *runner) playOn(session []Record) error {
	vm, err := r.target.Connect(vhostusertest.QEMU11B)
	if err != nil {
		return err
	}
	defer vm.Quit()
	// Recorded addresses count from the arena's start.
	block, err := vm.Pages.Contiguous(arenaSize)
	if err != nil {
		return err
	}
	base := block.Entries[0].Addr
	for _, rec := range session {
		q := vm.Ctrl
		if rec.Cursor {
			q = vm.Cursor
		}
		if len(rec.Cmd) == 0 {
			continue
		}
		if _, _, err := vm.DoOn(q, rebase(rec.Cmd, base)); err != nil {
			return fmt.Errorf("%v: %w", nameOf(rec.Cmd), err)
		}
	}
	if err := vm.Reload(); err != nil {
		return err
	}
	return vm.Healthy()
}

func nameOf(cmd []byte) string {
	if len(cmd) < 4 {
		return "half a header"
	}
	return headerOf(cmd).String()
}

// rebase moves the addresses of memory entries from the arena's start to base.
// Wrong ones stay wrong.
func rebase(cmd []byte, base uint64) []byte {
	at := entriesAt(cmd)
	if at == 0 {
		return cmd
	}
	out := append([]byte(nil), cmd...)
	for ; at+virtiogpu.SizeMemEntry <= len(out); at += virtiogpu.SizeMemEntry {
		binary.LittleEndian.PutUint64(out[at:], binary.LittleEndian.Uint64(out[at:])+base)
	}
	return out
}

// entriesAt is where the memory entries of a command begin; 0 if it has none.
func entriesAt(cmd []byte) int {
	if len(cmd) < 4 {
		return 0
	}
	switch headerOf(cmd) {
	case virtiogpu.CmdResourceAttachBacking:
		return virtiogpu.SizeResourceAttachBacking
	case virtiogpu.CmdResourceCreateBlob:
		return virtiogpu.SizeResourceCreateBlob
	}
	return 0
}

// sessionFailed writes down what happened and brings the broker back. A crash
// inside the renderer's libraries is reduced once for each place.
func (r *runner) sessionFailed(ctx context.Context, rep *MutationReport, name string, n uint64, session []Record, why error) error {
	log := r.target.Log()
	if errors.Is(why, errCrash) {
		place := r.target.Place(log)
		i := slices.IndexFunc(rep.Crashes, func(c CrashPlace) bool { return c.Place == place })
		if i >= 0 {
			rep.Crashes[i].Count++
			return r.target.Start(ctx)
		}
		fmt.Fprintf(r.o.Log, "session %d of %s: the renderer crashed in %s\n", n, name, place)
		if err := r.target.Start(ctx); err != nil {
			return err
		}
		small, err := r.reduce(ctx, session, place)
		if err != nil {
			return err
		}
		file := fmt.Sprintf("crash-%d.json.gz", len(rep.Crashes))
		if err := r.keep(file, small); err != nil {
			return err
		}
		rep.Crashes = append(rep.Crashes, CrashPlace{Place: place, Count: 1, Traffic: name, Commands: len(small), File: file, Log: lastLines(log, 25)})
		return nil
	}
	what := CaseReport{Target: r.target.Name, Case: fmt.Sprintf("mutation %d of %s, seed %d", n, name, r.o.Seed), What: why.Error()}
	fmt.Fprintf(r.o.Log, "%s: %s\n", what.Case, what.What)
	gone := r.exited()
	stuck := r.late.Load() || !gone && r.target.idle() != nil
	if stuck {
		r.rep.Hangs++
	} else if gone {
		r.rep.BrokerExits++
		what.Log = lastLines(log, 40)
	}
	r.rep.Failures = append(r.rep.Failures, what)
	if err := r.keep(fmt.Sprintf("session-%d.json.gz", n), session); err != nil {
		return err
	}
	if !gone && !stuck {
		return nil
	}
	if !gone {
		r.target.Kill()
	}
	return r.target.Start(ctx)
}

func (r *runner) keep(file string, session []Record) error {
	if r.o.Dir == "" {
		return nil
	}
	body, err := encodeTraffic(session)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.o.Dir, file), body, 0o644)
}

// reduceTime bounds the reduction of one crash.
const reduceTime = 40 * time.Second

// reduce leaves commands out as long as the rest crashes in the same place.
func (r *runner) reduce(ctx context.Context, session []Record, place string) ([]Record, error) {
	end := time.Now().Add(reduceTime)
	for size := (len(session) + 1) / 2; size >= 1; size /= 2 {
		for at := 0; at < len(session); {
			if time.Now().After(end) || ctx.Err() != nil {
				return session, nil
			}
			less := slices.Concat(session[:at], session[min(at+size, len(session)):])
			crashed := errors.Is(r.play(less), errCrash)
			same := crashed && r.target.Place(r.target.Log()) == place
			if !r.target.Alive() {
				if err := r.target.Start(ctx); err != nil {
					return nil, err
				}
			}
			if same {
				session = less
			} else {
				at += size
			}
		}
	}
	return session, nil
}
