// Package manual writes manual pages of cobra commands, for packagers.
//
// Cobra's own generator knows no sections but those that a command's help has, and shows
// options as Go writes their values.
package manual

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Header is what all pages have in common.
type Header struct {
	Source string // the program and its version
	Date   time.Time
}

// Extra is what a page says and a command's help does not.
type Extra struct {
	Exit, Environment, Files []Entry
	SeeAlso                  []string // other pages, such as "weston(1)", and files
}

// Entry is a line of a list: a name, and what it is.
type Entry [2]string

// Write writes the page of a program and those of its commands into a folder. The
// extras' keys are command paths such as "gpubroker serve"; a key of no command is an
// error.
func Write(root *cobra.Command, dir string, h Header, extras map[string]Extra) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	known := map[string]bool{}
	for _, cmd := range pages(root) {
		known[cmd.CommandPath()] = true
		file := filepath.Join(dir, pageName(cmd)+".1")
		if err := os.WriteFile(file, page(cmd, h, extras[cmd.CommandPath()]), 0o644); err != nil { //nolint:gosec // for everyone
			return err
		}
	}
	for path := range extras {
		if !known[path] {
			return fmt.Errorf("manual: there is no command %q", path)
		}
	}
	return nil
}

// pages lists a command and those below it that users see.
func pages(cmd *cobra.Command) []*cobra.Command {
	list := []*cobra.Command{cmd}
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() && !c.IsAdditionalHelpTopicCommand() && c.Name() != "help" {
			list = append(list, pages(c)...)
		}
	}
	return list
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

func page(cmd *cobra.Command, h Header, x Extra) []byte {
	cmd.InitDefaultHelpFlag()
	p := &writer{}
	p.line(`.TH "%s" "1" "%s" "%s" "User Commands"`, escape(strings.ToUpper(pageName(cmd))), h.Date.UTC().Format(time.DateOnly), escape(h.Source))
	p.line(".nh\n.ad l") // options that break are not found
	p.section("NAME")
	p.line(`%s \- %s`, escape(pageName(cmd)), escape(cmd.Short))
	p.section("SYNOPSIS")
	rest := strings.TrimSpace(strings.TrimPrefix(strings.ReplaceAll(cmd.UseLine(), "[flags]", "[OPTION]..."), cmd.CommandPath()))
	p.line(`.B %s`, escape(cmd.CommandPath()))
	p.line("%s", escape(rest))
	below := pages(cmd)[1:]
	if len(below) > 0 {
		p.line(".br\n.B %s", escape(cmd.CommandPath()))
		p.line("COMMAND [OPTION]...")
	}
	p.section("DESCRIPTION")
	long := cmd.Long
	if long == "" {
		long = cmd.Short + "."
	}
	p.text(long)
	if len(below) > 0 {
		p.section("COMMANDS")
		for _, c := range below {
			p.item(`\fB`+escape(strings.TrimPrefix(c.CommandPath(), cmd.CommandPath()+" "))+`\fR`, c.Short)
		}
	}
	p.section("OPTIONS")
	p.flags(cmd.NonInheritedFlags())
	if cmd.HasAvailableInheritedFlags() {
		p.line(".SS Options of every command")
		p.flags(cmd.InheritedFlags())
	}
	for _, s := range []struct {
		name string
		list []Entry
	}{{"EXIT STATUS", x.Exit}, {"ENVIRONMENT", x.Environment}, {"FILES", x.Files}} {
		if len(s.list) == 0 {
			continue
		}
		p.section(s.name)
		for _, e := range s.list {
			p.item(`\fB`+escape(e[0])+`\fR`, e[1])
		}
	}
	if cmd.Example != "" {
		p.section("EXAMPLES")
		p.text(cmd.Example)
	}
	var see []string
	for _, c := range pages(cmd.Root()) {
		if c != cmd {
			see = append(see, pageName(c)+"(1)")
		}
	}
	slices.Sort(see)
	p.section("SEE ALSO")
	for i, name := range append(see, x.SeeAlso...) {
		if i > 0 {
			p.b.WriteString(",\n")
		}
		p.b.WriteString(escape(name))
	}
	p.b.WriteString("\n")
	return p.b.Bytes()
}

// writer writes the language of roff, with the macros of man(7).
type writer struct{ b bytes.Buffer }

func (p *writer) line(format string, args ...any) { fmt.Fprintf(&p.b, format+"\n", args...) }

func (p *writer) section(name string) { p.line(".SH %s", name) }

func (p *writer) item(head, text string) { p.line(".TP\n%s\n%s", head, escape(text)) }

// text writes paragraphs. Lines that are indented stand as they are.
func (p *writer) text(s string) {
	fixed := false
	fix := func(on bool) {
		if on && !fixed {
			p.line(".PP\n.RS 4\n.nf")
		} else if !on && fixed {
			p.line(".fi\n.RE\n.PP")
		}
		fixed = on
	}
	for line := range strings.Lines(s) {
		line = strings.TrimRight(line, "\n")
		switch indented := strings.TrimPrefix(line, "  "); {
		case line == "":
			fix(false)
			p.line(".PP")
		case indented != line:
			fix(true)
			p.line("%s", escape(indented))
		default:
			fix(false)
			p.line("%s", escape(line))
		}
	}
	fix(false)
}

func (p *writer) flags(set *pflag.FlagSet) {
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Deprecated != "" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		head := `\fB` + escape("--"+f.Name) + `\fR`
		if f.Shorthand != "" {
			head = `\fB` + escape("-"+f.Shorthand) + `\fR, ` + head
		}
		switch v := `=\fI` + escape(value) + `\fR`; {
		case f.Value.Type() == "bool":
		case f.NoOptDefVal != "":
			head += "[" + v + "]"
		default:
			head += v
		}
		switch f.DefValue {
		case "", "false", "[]", "-1": // of an option that was not given
		default:
			if !strings.Contains(usage, "(default") && f.Value.Type() != "bool" {
				usage += " (default: " + f.DefValue + ")"
			}
		}
		p.item(head, usage+".")
	})
}

// escape keeps what has a meaning in roff from having it. Each line is one of text.
func escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "^", `\(ha`, "~", `\(ti`, "`", `\(ga`, `"`, `\(dq`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
