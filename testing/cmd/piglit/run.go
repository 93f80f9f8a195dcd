package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/report"
	"github.com/gpubroker/gpubroker/testing/virpipe"
)

// rig is the tests and the two servers.
type rig struct {
	root   *lab.Root
	piglit *Piglit
	limit  time.Duration // of a test
	theirs *virpipe.Server
	ours   *virpipe.Server
}

func run(ctx context.Context, o *options) (err error) {
	list := quickList
	if o.list != "" {
		body, err := os.ReadFile(o.list)
		if err != nil {
			return err
		}
		list = string(body)
	}
	tests, err := parseList(list)
	if err != nil {
		return err
	}
	if o.only != nil {
		tests = slices.DeleteFunc(tests, func(t Test) bool { return !o.only.MatchString(t.Group) && !o.only.MatchString(t.Name) })
		if len(tests) == 0 {
			return fmt.Errorf("no test matches %q", o.only)
		}
	}
	root, err := lab.Find()
	if err != nil {
		return err
	}
	out, err := report.NewDir("piglit")
	if err != nil {
		return err
	}
	groups := byGroup(tests)
	steps := report.NewSteps(os.Stdout, 2+len(groups))
	steps.Step("find piglit, Debian's package")
	r := &rig{root: root, limit: o.limit}
	if r.piglit, err = install(ctx, root, func(what string) { steps.Note("%s", what) }); err != nil {
		return err
	}
	steps.Step("start gpubroker and virgl_test_server")
	stop, err := r.start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	start := time.Now()
	versions, _ := root.Versions() // for people; the outcomes count
	if versions == nil {
		versions = map[string]string{}
	}
	versions["piglit"], versions["waffle"] = r.piglit.Version, r.piglit.Waffle
	rep := newReport(versions, o.limit, o.list == "")
	for _, group := range groups {
		steps.Step("%s: %d tests on each", group[0].Group, len(group))
		for _, test := range group {
			result, err := r.compare(ctx, test)
			if err != nil {
				return err
			}
			rep.add(result)
			if !r.ours.Broker.Alive() {
				rep.finish(time.Since(start), nil)
				return errors.Join(fmt.Errorf("gpubroker ended in test %q\n%s", test.Name, r.ours.Broker.Log()), out.JSON(rep))
			}
		}
	}
	status, err := r.atRest(ctx)
	if err != nil {
		return err
	}
	rep.finish(time.Since(start), status)
	if err := out.JSON(rep); err != nil {
		return err
	}
	steps.Done("each outcome is in %s", filepath.Join(out.Path, "report.json"))
	rep.print(os.Stdout)
	return rep.verdict()
}

// start starts both servers and sees that programs draw there.
func (r *rig) start(ctx context.Context) (stop func() error, err error) {
	tmp, err := os.MkdirTemp("", "piglit-")
	if err != nil {
		return nil, err
	}
	ends := []func() error{func() error { return os.RemoveAll(tmp) }}
	stop = func() error {
		var errs []error
		for _, end := range slices.Backward(ends) {
			errs = append(errs, end())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, stop())
		}
	}()
	binary := filepath.Join(tmp, "gpubroker")
	if err := brokerproc.Build(ctx, binary); err != nil {
		return nil, err
	}
	if r.ours, err = virpipe.Gpubroker(ctx, r.root, binary); err != nil {
		return nil, err
	}
	ends = append(ends, r.ours.Stop)
	if r.theirs, err = virpipe.Reference(ctx, r.root); err != nil {
		return nil, err
	}
	ends = append(ends, r.theirs.Stop)
	for _, s := range []*virpipe.Server{r.theirs, r.ours} {
		out, err := s.Command(ctx, r.root, nil, nil, "eglinfo", "-B", "-p", "surfaceless").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "virgl (") {
			return nil, fmt.Errorf("%s: eglinfo: %w\n%s", s.Name, err, out)
		}
	}
	return stop, nil
}

// compare runs a test on both, and again if it came out differently.
func (r *rig) compare(ctx context.Context, test Test) (TestReport, error) {
	t := TestReport{Group: test.Group, Name: test.Name}
	for range 2 {
		for _, of := range []struct {
			server *virpipe.Server
			to     *Outcome
		}{{r.theirs, &t.Reference}, {r.ours, &t.Gpubroker}} {
			o, err := r.test(ctx, of.server, test)
			if err != nil {
				return t, err
			}
			*of.to = o
		}
		first := t.Differences
		t.Differences = differences(t.Reference, t.Gpubroker)
		if len(t.Differences) == 0 {
			t.Flaky = first
			break
		}
	}
	return t, nil
}

// test runs one on a server. An error is of the harness.
func (r *rig) test(ctx context.Context, s *virpipe.Server, test Test) (Outcome, error) {
	limited, cancel := context.WithTimeout(ctx, r.limit)
	defer cancel()
	start := time.Now()
	output, err := s.Command(limited, r.root, r.piglit.env(), nil, r.piglit.argv(test)...).CombinedOutput()
	took := time.Since(start)
	if ctx.Err() != nil {
		return Outcome{}, ctx.Err()
	}
	code := 0
	var exit *exec.ExitError
	late := limited.Err() != nil
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil && !late {
		return Outcome{}, fmt.Errorf("%s: %w", test.Name, err)
	}
	o := judge(output, code, late)
	o.Seconds = rounded(took.Seconds())
	return o, nil
}

// atRest waits until gpubroker holds nothing for clients any more.
func (r *rig) atRest(ctx context.Context) (*broker.VtestStatus, error) {
	for end := time.Now().Add(30 * time.Second); ; {
		st, err := r.ours.Broker.Status()
		if err != nil {
			return nil, err
		}
		v := st.Vtest
		if v == nil {
			return nil, errors.New("gpubroker's status says nothing of vtest clients")
		}
		if len(v.Clients) == 0 && v.Contexts == 0 && v.Resources == 0 && v.Bytes == 0 {
			return v, nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("the tests have ended, and gpubroker holds this still: %+v", v)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
