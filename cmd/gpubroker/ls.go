package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/gpubroker/gpubroker/broker"
)

func newLs() *cobra.Command {
	var c controlOption
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List what a running gpubroker holds: scanouts, contexts, resources",
		Long: `ls asks a running gpubroker (serve --control PATH) for its tables: the scanouts and how
their frames go out, the guest's rendering contexts, every resource with who holds it,
and the window of host memory. --json writes the whole status.`,
		Example: `  gpubroker ls
  gpubroker ls --control /run/user/1000/gpubroker/work.control
  gpubroker ls --json | jq '.contexts[] | .name'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := c.socket()
			if err != nil {
				return err
			}
			st, err := broker.ReadStatus(path)
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(st)
			}
			return printTables(cmd.OutOrStdout(), &st)
		},
	}
	c.register(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "write the status as JSON")
	return cmd
}

func printTables(w io.Writer, st *broker.Status) error {
	guest := "no guest"
	if st.Connected {
		guest = "a guest is connected"
	}
	fmt.Fprintf(w, "gpubroker %s: %s on %s, display %s, %s\n", st.Version, st.Renderer.Library, or(st.Renderer.Node, "nothing"), st.Display, guest)
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(t, "\nSCANOUT\tRESOURCE\tPART\tTIER")
	for _, s := range st.Scanouts {
		fmt.Fprintf(t, "%d\t%d\t%dx%d at %d,%d\t%s\n", s.Head, s.Resource, s.Source.W, s.Source.H, s.Source.X, s.Source.Y, or(s.Tier, "-"))
	}
	fmt.Fprintln(t, "\nCONTEXT\tNAME\tSUBMITS")
	for _, x := range st.Contexts {
		fmt.Fprintf(t, "%d\t%s\t%d\n", x.ID, printable(x.Name), x.Submits)
	}
	fmt.Fprintln(t, "\nRESOURCE\tKIND\tSIZE\tFORMAT\tBACKING\tCONTEXTS\tTIER\tHELD\tBUFFER")
	for _, r := range st.Resources {
		var ctxs []string
		for _, id := range r.Contexts {
			ctxs = append(ctxs, fmt.Sprint(id))
		}
		fmt.Fprintf(t, "%d\t%s\t%dx%d\t%s\t%s\t%s\t%s\t%d\t%s\n", r.ID, r.Kind, r.Width, r.Height, r.Format, bytesText(r.Backing),
			or(strings.Join(ctxs, ","), "-"), or(r.Tier, "-"), r.Holders, or(r.Buffer, "-"))
	}
	fmt.Fprintln(t, "\nWINDOW\tUSED\tMAPPINGS")
	fmt.Fprintf(t, "%s\t%s\t%d of %d\n", bytesText(st.Window.Size), bytesText(st.Window.Used), st.Window.Placements, st.Window.Limit)
	if v := st.Vtest; v != nil {
		fmt.Fprintln(t, "\nVTEST CLIENT\tNAME\tVERSION\tRESOURCES\tSUBMITS\tSECONDS")
		for _, c := range v.Clients {
			fmt.Fprintf(t, "%d\t%s\t%d\t%d\t%d\t%d\n", c.ID, printable(c.Name), c.Version, c.Resources, c.Submits, c.Seconds)
		}
		fmt.Fprintf(t, "%d of %d\tall\t\t%d\t%d\t%s\n", len(v.Clients), v.Total, v.Resources, v.Submits, bytesText(v.Bytes))
	}
	return t.Flush()
}

func or(s, none string) string {
	if s == "" {
		return none
	}
	return s
}

// printable keeps what a guest calls itself from controlling the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

func bytesText(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}
