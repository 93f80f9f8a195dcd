// Command step runs one step of a make target, passes its output on and adds the
// outcome to a JSON report:
//
//	step -report out/test/report.json lint -- make lint
//	step -report out/test/report.json -test unit -- go test ./...
//	step -report out/test/report.json -summary
//
// With -test the command is a `go test`: step runs it verbosely, counts the tests
// and names the skipped and failed ones in the report. Some of what the failed ones
// said is printed once more at the end: of a long log often only the end is kept.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

func main() {
	report := flag.String("report", "", "JSON file to add the outcome to")
	isTest := flag.Bool("test", false, "the command is a go test")
	summary := flag.Bool("summary", false, "print what the report holds and exit")
	flag.Parse()
	code, err := run(os.Stdout, *report, *isTest, *summary, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "step:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(w io.Writer, path string, isTest, summary bool, args []string) (int, error) {
	if path == "" {
		return 1, errors.New("-report is missing")
	}
	report, err := readReport(path)
	if err != nil {
		return 1, err
	}
	if summary {
		report.print(w)
		return 0, nil
	}
	if len(args) < 3 || args[1] != "--" {
		return 1, errors.New("arguments are not NAME -- COMMAND")
	}
	name, argv := args[0], args[2:]
	fmt.Fprintf(w, "== %s\n", name)

	step := Step{Name: name}
	start := time.Now()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, w, os.Stderr
	if isTest {
		err = step.runTests(withJSON(cmd), w)
	} else {
		err = cmd.Run()
	}
	step.Seconds = time.Since(start).Seconds()
	step.OK = err == nil
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = max(exit.ExitCode(), 1)
		printFailures(w, step.failures)
		fmt.Fprintf(w, "== %s failed with code %d after %.0f s\n", name, code, step.Seconds)
		err = nil
	}
	return code, errors.Join(err, report.add(path, step))
}
