package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/gpubroker/gpubroker/testing/clients"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/report"
)

type options struct {
	out         string
	only        []string
	compositors []string
	transports  []string
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
	for _, name := range s.compositors {
		comp, err := clients.StartCompositor(ctx, s.root, name)
		if err != nil {
			return err
		}
		defer comp.Stop()
		direct := &clients.Direct{Root: s.root, Compositor: comp}
		if err := s.cases(ctx, comp, direct); err != nil {
			return err
		}
		if slices.Contains(s.transports, "direct") {
			if err := s.cases(ctx, comp, direct); err != nil {
				return err
			}
		}
	}
	return nil
}

// cases runs all cases at one place, the first time directly.
func (s *suite) cases(ctx context.Context, comp *clients.Compositor, at clients.Place) error {
	for i := range clients.Cases {
		c := &clients.Cases[i]
		if s.only != nil && !slices.Contains(s.only, c.Name) {
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
		if d := s.direct[r.Compositor+" "+r.Client]; d.OK && !r.OK {
			bad++
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d runs differ from the direct ones", bad)
	}
	return nil
}
