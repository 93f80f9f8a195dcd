package manual

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

func program() *cobra.Command {
	root := &cobra.Command{Use: "prog", Short: "Be a program", Long: "Prose that\ngoes on:\n  table   one\n  table   two\n.TH starts a line, 'so does this.\n\nA back\\slash, a `tick`."}
	do := &cobra.Command{Use: "do THING", Short: "Do it", Example: "  prog do --count 3 | sed 's/\\.$//'", Run: func(*cobra.Command, []string) {}}
	do.Flags().IntP("count", "c", 1, "how `OFTEN`")
	do.Flags().Bool("dry-run", false, "do not")
	do.Flags().String("mode", "", "a `MODE`")
	do.Flags().Lookup("mode").NoOptDefVal = "fast"
	do.Flags().String("secret", "", "nobody needs this")
	_ = do.Flags().MarkHidden("secret") // it exists
	root.PersistentFlags().String("log", "info", "`LEVEL` of the log")
	root.AddCommand(do, &cobra.Command{Use: "hidden", Hidden: true, Run: func(*cobra.Command, []string) {}})
	return root
}

var (
	header = Header{Source: "prog 1", Date: time.Unix(86400, 0)}
	extras = map[string]Extra{"prog do": {Exit: []Entry{{"0", "well"}}, Files: []Entry{{"/etc/prog", "its file"}}, SeeAlso: []string{"true(1)"}}}
)

// TestWrite reads the pages as a user does.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	if err := Write(program(), dir, header, extras); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(dir + "/*")
	if err != nil || len(files) != 2 {
		t.Fatalf("%q, %v", files, err)
	}
	man, err := exec.LookPath("man")
	if err != nil {
		t.Fatalf("nothing shows manual pages here (make setup installs it): %v", err)
	}
	for name, want := range map[string]string{
		"prog.1": `
PROG(1) User Commands PROG(1)
NAME
 prog - Be a program
SYNOPSIS
 prog [OPTION]...
 prog COMMAND [OPTION]...
DESCRIPTION
 Prose that goes on:
 table   one
 table   two
 .TH starts a line, 'so does this.
 A back\slash, a ` + "`tick`" + `.
COMMANDS
 do Do it
OPTIONS
 -h, --help
 help for prog.
 --log=LEVEL
 LEVEL of the log (default: info).
SEE ALSO
 prog-do(1)
prog 1 1970-01-02 PROG(1)
`,
		"prog-do.1": `
PROG-DO(1) User Commands PROG-DO(1)
NAME
 prog-do - Do it
SYNOPSIS
 prog do THING [OPTION]...
DESCRIPTION
 Do it.
OPTIONS
 -c, --count=OFTEN
 how OFTEN (default: 1).
 --dry-run
 do not.
 -h, --help
 help for do.
 --mode[=MODE]
 a MODE.
 Options of every command
 --log=LEVEL
 LEVEL of the log (default: info).
EXIT STATUS
 0 well
FILES
 /etc/prog
 its file
EXAMPLES
 prog do --count 3 | sed 's/\.$//'
SEE ALSO
 prog(1), true(1)
prog 1 1970-01-02 PROG-DO(1)
`,
	} {
		cmd := exec.Command(man, "--warnings", "-E", "ascii", "-l", filepath.Join(dir, name))
		cmd.Env = append(os.Environ(), "LC_ALL=C", "MANWIDTH=80", "MAN_KEEP_FORMATTING=", "MANPAGER=cat")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || stderr.Len() > 0 {
			t.Errorf("%s: %v\n%s", name, err, &stderr)
		}
		if got := squeeze(string(out)); got != strings.TrimPrefix(want, "\n") {
			t.Errorf("%s:\n%s\nwant%s", name, got, want)
		}
	}
}

// squeeze leaves of the white space what means something: indented or not, and columns.
func squeeze(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		text := strings.TrimSpace(line)
		if text == "" {
			continue
		}
		if line[0] == ' ' {
			b.WriteString(" ")
		}
		if !strings.Contains(text, "table") {
			text = strings.Join(strings.Fields(text), " ")
		}
		b.WriteString(text + "\n")
	}
	return b.String()
}

func TestWriteUnknown(t *testing.T) {
	err := Write(program(), t.TempDir(), header, map[string]Extra{"prog undo": {}})
	if err == nil || !strings.Contains(err.Error(), `no command "prog undo"`) {
		t.Error(err)
	}
}
