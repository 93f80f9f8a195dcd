package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gpubroker/gpubroker/testing/clients"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/report"
)

type options struct {
	out         string
	only        []string
	compositors []string
	transports  []string
	imports     bool
	bin         string
	script      string
}

// suite is one run of the command.
type suite struct {
	options
	root    *lab.Root
	dir     report.Dir
	results []*clients.Result
	direct  map[string]*clients.Result // by compositor and client
}

func run(ctx context.Context, o options) error {
	s := &suite{options: o, direct: map[string]*clients.Result{}}
	var err error
	if s.root, err = lab.Find(); err != nil {
		return err
	}
	if s.dir, err = report.NewDir(o.out); err != nil {
		return err
	}
	err = s.run(ctx)
	return errors.Join(err, s.dir.JSON(s.results), s.verdict())
}

func (s *suite) run(ctx context.Context) error {
	if len(s.compositors) == 0 {
		s.compositors = clients.Compositors
	}
	var err error
	programs := clients.Programs{Broker: filepath.Join(s.bin, "gpubroker"), Guest: filepath.Join(s.bin, "gpubroker-guest")}
	if s.bin == "" {
		if programs, err = clients.BuildPrograms(ctx, filepath.Join("out", "bin")); err != nil {
			return err
		}
	}
	var comps []*clients.Compositor
	for _, name := range s.compositors {
		comp, err := clients.StartCompositor(ctx, s.root, name)
		if err != nil {
			return err
		}
		defer comp.Stop()
		comps = append(comps, comp)
		direct := &clients.Direct{Root: s.root, Compositor: comp}
		if s.script != "" {
			err = runScript(ctx, direct, s.script)
		} else {
			err = s.cases(ctx, comp, direct)
		}
		if err != nil {
			return err
		}
	}
	for _, name := range s.transports {
		if err := s.transport(ctx, name, programs, comps); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// transport runs everything over one way.
func (s *suite) transport(ctx context.Context, name string, p clients.Programs, comps []*clients.Compositor) error {
	log, err := s.dir.Create("gpubroker-" + name + ".log")
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	fmt.Println("starting", name)
	var rig clients.Rig
	if name == "unix" {
		rig, err = clients.StartUnix(ctx, s.root, p, comps[0], log)
	} else {
		rig, err = clients.StartGuest(ctx, s.root, p, comps[0].Socket(), clients.GuestOptions{Transport: name, Import: s.imports && name == clients.CrossDomain, Log: log})
	}
	if err != nil {
		return err
	}
	for _, comp := range comps {
		if err = rig.Use(comp); err != nil {
			break
		}
		if s.script != "" {
			if err = runScript(ctx, rig, s.script); err != nil {
				break
			}
			continue
		}
		if err = s.cases(ctx, comp, rig); err != nil {
			break
		}
		if err = s.others(ctx, comp, rig); err != nil {
			break
		}
	}
	guest, lerr := s.dir.Create("gpubroker-guest-" + name + ".log")
	if lerr == nil {
		_, lerr = guest.WriteString(rig.Log())
		lerr = errors.Join(lerr, guest.Close())
	}
	summary, cerr := rig.Close()
	fmt.Println(summary)
	return errors.Join(err, lerr, cerr)
}

// runScript runs a shell script where the clients run, to look into what they do.
func runScript(ctx context.Context, at clients.Place, script string) error {
	c, err := at.Start(ctx, script)
	if err != nil {
		return err
	}
	defer c.Stop()
	for {
		ended, code, err := c.Ended(ctx)
		if err != nil {
			return err
		}
		if ended {
			fmt.Printf("%s\n(%s: exit code %d)\n", c.Log(), at.Name(), code)
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// others are the cases that are more than one client.
func (s *suite) others(ctx context.Context, comp *clients.Compositor, rig clients.Rig) error {
	var results []*clients.Result
	if comp.Keyboard() && s.wants("clipboard") {
		direct := &clients.Direct{Root: s.root, Compositor: comp}
		results = append(results, clients.Clipboards(ctx, comp, rig, direct)...)
	}
	c, _ := clients.Find("weston-terminal")
	if want := s.direct[comp.Name+" "+c.Name]; s.wants("faults") && want != nil {
		results = append(results, clients.Faults(ctx, &c, comp, rig, want)...)
	}
	for _, r := range results {
		if err := s.keep(r); err != nil {
			return err
		}
	}
	return rig.Healthy(ctx)
}

func (s *suite) wants(name string) bool { return s.only == nil || slices.Contains(s.only, name) }

// cases runs all cases at one place, the first time directly.
func (s *suite) cases(ctx context.Context, comp *clients.Compositor, at clients.Place) error {
	for i := range clients.Cases {
		c := &clients.Cases[i]
		if !s.wants(c.Name) {
			continue
		}
		key := comp.Name + " " + c.Name
		r := clients.Run(ctx, c, comp, at, s.direct[key])
		if at.Name() == "direct" && s.direct[key] == nil {
			s.direct[key] = r
		}
		if err := s.keep(r); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// keep adds a result to the report.
func (s *suite) keep(r *clients.Result) error {
	s.results = append(s.results, r)
	mark := "ok  "
	if !r.OK {
		mark = "FAIL"
	}
	fmt.Fprintf(os.Stdout, "%s %-30s %-14s %-14s %5.1f s  %.150s\n", mark, r.Client, r.Transport, r.Compositor, r.Seconds, r.Why)
	if r.Look == nil || r.Look.Last == nil {
		return nil
	}
	return s.dir.PNG(fmt.Sprintf("%s-%s-%s.png", r.Client, r.Compositor, r.Transport), r.Look.Last.Image())
}

// verdict says how many clients work directly and not through gpubroker.
func (s *suite) verdict() error {
	bad := 0
	for _, r := range s.results {
		if d := s.direct[r.Compositor+" "+r.Client]; !r.OK && (d == nil || d.OK) {
			bad++
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d runs are not as they should be", bad, len(s.results))
	}
	return nil
}
