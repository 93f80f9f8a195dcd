package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker"
)

func newTop() *cobra.Command {
	var c controlOption
	var interval time.Duration
	var count int
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch a running gpubroker: frames by tier, copies, commands, contexts",
		Long: `top asks a running gpubroker (serve --control PATH) again and again what it did, and
shows how much of it a second. On a terminal it redraws; elsewhere it writes one block
after the other. It ends with Ctrl-C, after --count times, or when the broker ends.`,
		Example: `  gpubroker top
  gpubroker top --interval 100ms --count 10 >log`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if interval < 10*time.Millisecond {
				return usageError{fmt.Errorf("--interval %v: want 10ms or more", interval)}
			}
			if count < 0 {
				return usageError{fmt.Errorf("--count %d: want 0 (for ever) or more", count)}
			}
			path, err := c.socket()
			if err != nil {
				return err
			}
			return top(cmd.Context(), cmd.OutOrStdout(), path, interval, count)
		},
	}
	c.register(cmd.Flags())
	cmd.Flags().DurationVarP(&interval, "interval", "n", time.Second, "`TIME` between two looks")
	cmd.Flags().IntVar(&count, "count", 0, "how many `TIMES`; 0 for ever")
	return cmd
}

func top(ctx context.Context, w io.Writer, path string, interval time.Duration, count int) error {
	before, err := broker.ReadStatus(path)
	if err != nil {
		return err
	}
	at := time.Now()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	screen := terminal(w)
	for n := 0; count == 0 || n < count; n++ {
		select {
		case <-ctx.Done():
			return nil // that is how it is ended
		case <-tick.C:
		}
		now, err := broker.ReadStatus(path)
		if err != nil {
			return err
		}
		text := ratesOf(&before, &now, time.Since(at))
		at, before = time.Now(), now
		if screen {
			// Home, each line cleared to its end, then what is below: no flicker.
			text = "\x1b[H" + strings.ReplaceAll(text, "\n", "\x1b[K\n") + "\x1b[J"
		} else {
			text += "\n"
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	return nil
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	return err == nil
}

// tiers in the order of the README's table.
var tiers = []string{"dmabuf", "udmabuf", "shared", "shm", "copy"}

// maxTopContexts is how many contexts are shown, the busiest first.
const maxTopContexts = 20

// ratesOf describes what happened between two looks.
func ratesOf(a, b *broker.Status, d time.Duration) string {
	rate := func(before, after uint64) float64 {
		if after < before { // the broker was started anew
			before = 0
		}
		return float64(after-before) / d.Seconds()
	}
	var out strings.Builder
	fmt.Fprintf(&out, "gpubroker %s  %s on %s  display %s  connected %v\n", b.Version, b.Renderer.Library, or(b.Renderer.Node, "nothing"), b.Display, b.Connected)
	out.WriteString("frames/s")
	for _, t := range tiers {
		fmt.Fprintf(&out, "  %s %.1f", t, rate(a.Tiers[t], b.Tiers[t]))
	}
	fmt.Fprintf(&out, "  skipped %.1f\n", rate(a.Frames.Skipped, b.Frames.Skipped))
	fmt.Fprintf(&out, "copied %.2f MB/s  cursor %.2f MB/s  flush to commit %d µs half, %d µs 99 %%\n", rate(a.BytesCopied, b.BytesCopied)/1e6,
		rate(a.CursorBytes, b.CursorBytes)/1e6, b.FlushToCommit.P50, b.FlushToCommit.P99)
	fmt.Fprintf(&out, "commands/s %.0f  errors/s %.1f  submits/s %.0f  flushes/s %.0f  fences/s %.0f, %d outstanding\n", rate(a.Commands, b.Commands),
		rate(a.Errors+a.RingErrors, b.Errors+b.RingErrors), rate(a.Submits, b.Submits), rate(a.Flushes, b.Flushes), rate(a.Fences, b.Fences), b.FencesOutstanding)
	fmt.Fprintf(&out, "resources %d  imports %d  contexts %d  window %s of %s in %d mappings\n", len(b.Resources), b.ImportsLive, len(b.Contexts),
		bytesText(b.Window.Used), bytesText(b.Window.Size), b.Window.Placements)
	type row struct {
		broker.ContextStatus
		rate float64
	}
	old := map[uint32]broker.ContextStatus{}
	for _, c := range a.Contexts {
		old[c.ID] = c
	}
	var rows []row
	for _, c := range b.Contexts {
		before := old[c.ID].Submits
		if old[c.ID].Name != c.Name {
			before = 0 // another context of the same number
		}
		rows = append(rows, row{c, rate(before, c.Submits)})
	}
	slices.SortFunc(rows, func(x, y row) int { return cmp.Or(cmp.Compare(y.rate, x.rate), cmp.Compare(x.ID, y.ID)) })
	t := tabwriter.NewWriter(&out, 2, 8, 2, ' ', 0)
	if len(rows) > 0 {
		fmt.Fprintln(t, "\nCONTEXT\tSUBMITS/S\tSUBMITS\tNAME")
	}
	for i, r := range rows {
		if i == maxTopContexts {
			fmt.Fprintf(t, "and %d more\n", len(rows)-i)
			break
		}
		fmt.Fprintf(t, "%d\t%.1f\t%d\t%s\n", r.ID, r.rate, r.Submits, printable(r.Name))
	}
	_ = t.Flush() // to memory
	return out.String()
}
