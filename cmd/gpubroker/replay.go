package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/spf13/cobra"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/record"
)

// Exit codes of replay; 0: every answer is the same.
const (
	replayDifferent = 1
	replayFailed    = 2 // the file is no good, or what it needs is not here
)

type replayOptions struct {
	virgl, node string
	speed       float64
	commands    uint64
	list        int
	memory      string
	shot        string
	scanout     uint32
	json        bool
	logLevel    string
	logs        io.Writer
}

func newReplay(logs io.Writer) *cobra.Command {
	o := &replayOptions{logs: logs}
	cmd := &cobra.Command{
		Use:   "replay FILE",
		Short: "Play a recording of a guest (serve --record), without a VM",
		Long: `replay runs the commands of a recording through the same device that serve has, with
guest memory of its own and no display, and compares what they are answered with. The file
may be packed with gzip.

The exit code is 0 if every answer is the same, 1 if some are not, 2 if the file cannot be
read or played. A file that ends in the middle, because the broker was killed, is played as
far as it goes. A recording of a guest with 3D needs a renderer here, and may be answered in
another way by another version of it. A command that ended the broker ends replay, too.`,
		Example: `  gpubroker replay recording.gz --shot last.png
  gpubroker replay recording --virgl=off --json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("want one FILE, - for the standard input")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), args[0], cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.virgl, "virgl", "v", "auto", "3D: `on`, off, or auto (if virglrenderer starts)")
	f.Lookup("virgl").NoOptDefVal = "on"
	f.StringVarP(&o.node, "render-node", "r", "", "DRM render node `PATH` (default: the first that works, else software rendering)")
	f.Float64Var(&o.speed, "speed", 0, "`TIMES` as fast as it was recorded (0: as fast as it goes)")
	f.Uint64Var(&o.commands, "commands", 0, "play the first `N` commands only (0: all)")
	f.IntVar(&o.list, "list", 20, "list the first `N` differences")
	f.StringVar(&o.memory, "memory", "4G", "`SIZE` that the guest's memory may take here")
	f.StringVar(&o.shot, "shot", "", "write the last picture that was on the scanout to `FILE.png`")
	f.Uint32Var(&o.scanout, "scanout", 0, "which scanout `N` the picture is of")
	f.BoolVar(&o.json, "json", false, "print the report as JSON")
	f.StringVar(&o.logLevel, "log-level", "error", "`LEVEL` of the device's log: debug, info, warn or error")
	return cmd
}

func (o *replayOptions) config() (c broker.PlayConfig, err error) {
	bad := func(format string, args ...any) (broker.PlayConfig, error) {
		return c, usageError{fmt.Errorf(format, args...)}
	}
	c = broker.PlayConfig{RenderNode: o.node, Speed: o.speed, Commands: o.commands, Differences: o.list, Shot: o.shot != "", Scanout: o.scanout}
	if c.Virgl, err = parseVirgl(o.virgl); err != nil {
		return bad("%w", err)
	}
	if o.speed < 0 || math.IsNaN(o.speed) || math.IsInf(o.speed, 0) {
		return bad("--speed %v: want a number from 0 on", o.speed)
	}
	if o.list < 0 {
		return bad("--list %d: want a number from 0 on", o.list)
	}
	if o.scanout >= display.MaxHeads {
		return bad("--scanout %d: limit %d", o.scanout, display.MaxHeads-1)
	}
	if c.Memory, err = parseSize(o.memory); err != nil || c.Memory == 0 {
		return bad("--memory %q: want a size such as 4G", o.memory)
	}
	if c.Log, err = newLog(o.logs, o.logLevel, "console"); err != nil {
		return c, usageError{err}
	}
	return c, nil
}

func (o *replayOptions) run(ctx context.Context, path string, stdin io.Reader, stdout, stderr io.Writer) error {
	cfg, err := o.config()
	if err != nil {
		return err
	}
	failed := func(err error) error {
		fmt.Fprintf(stderr, "gpubroker replay: %v\n", err)
		return exitCode(replayFailed)
	}
	in := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return failed(err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	r, err := record.NewReader(in, path)
	if err != nil {
		return failed(err)
	}
	rep, err := broker.Play(ctx, r, cfg)
	if rep.Shot != nil && o.shot != "" {
		if werr := writeFile(o.shot, rep.Shot.PNG); err == nil {
			err = werr
		}
	}
	if o.json {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		if jerr := enc.Encode(rep); err == nil {
			err = jerr
		}
	} else {
		o.print(stdout, path, rep)
	}
	switch {
	case err != nil:
		return failed(err)
	case o.shot != "" && rep.Shot == nil:
		return failed(fmt.Errorf("no picture: %w", rep.ShotError))
	case rep.Different > 0:
		return exitCode(replayDifferent)
	}
	return nil
}

// print writes the report for people.
func (o *replayOptions) print(w io.Writer, path string, rep *broker.PlayReport) {
	has := func(gl bool) string {
		if gl {
			return "3D"
		}
		return "2D only"
	}
	fmt.Fprintf(w, "%s: of gpubroker %s, %s, renderer %s (%s)\n", path, rep.Recorded.Version, rep.Recorded.Start, rep.Recorded.Renderer, has(rep.Recorded.GL))
	fmt.Fprintf(w, "%d commands played in %.2f s, renderer %s (%s): %d answers compared, %d different, %d unknown, %d skipped\n",
		rep.Commands, rep.Seconds, rep.Renderer, has(rep.GL), rep.Compared, rep.Different, rep.Unanswered, rep.Skipped)
	for _, d := range rep.Differences {
		fmt.Fprintf(w, "  command %d (offset %d) %s", d.Command, d.Offset, d.Name)
		if d.Context != 0 {
			fmt.Fprintf(w, " of context %d", d.Context)
		}
		fmt.Fprintf(w, ": %s then, %s now", d.Recorded, d.Replayed)
		if d.Why != "" {
			fmt.Fprintf(w, " (%s)", d.Why)
		}
		fmt.Fprintln(w)
	}
	if more := rep.Different - uint64(len(rep.Differences)); more > 0 {
		fmt.Fprintf(w, "  and %d more\n", more)
	}
	if rep.Recorded.GL && !rep.GL {
		fmt.Fprintln(w, "The guest had 3D, and here there is none: --virgl=on says why.")
	}
	if rep.Skipped > 0 {
		fmt.Fprintln(w, "What the guest's programs told their compositor was skipped.")
	}
	switch {
	case rep.Truncated:
		fmt.Fprintln(w, "The file ends inside a record: the broker was killed, or the copy is not whole. All before it was played.")
	case rep.End != "":
		fmt.Fprintf(w, "End of the recording: %s.\n", rep.End)
	case o.commands == 0 || rep.Commands < o.commands:
		fmt.Fprintln(w, "The file does not say why it ends: the broker was killed, or it still records.")
	}
	if l := rep.Last; l != nil && !l.Answered && rep.End == "" && rep.Commands != o.commands {
		fmt.Fprintf(w, "The last command has no answer there: command %d (offset %d) %s of context %d.\n", l.Command, l.Offset, l.Name, l.Context)
	}
	if s := rep.Shot; s != nil && o.shot != "" {
		fmt.Fprintf(w, "%s: %dx%d of resource %d (%s)\n", o.shot, s.Width, s.Height, s.Resource, s.Format)
	}
}
