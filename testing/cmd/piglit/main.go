// Command piglit runs a selection of piglit's quick profile (quick.txt) with Mesa's virpipe
// driver, each test on virgl_test_server and on gpubroker, and fails if one of them comes
// out differently. The tests are those of Debian's package, which it fetches by apt the
// first time and keeps beside the lab root. It writes out/piglit/report.json.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

type options struct {
	list  string         // a file in the place of quick.txt
	only  *regexp.Regexp // nil: all tests
	limit time.Duration
}

func main() {
	o := options{}
	flag.DurationVar(&o.limit, "limit", 30*time.Second, "`TIME` that a test may take")
	flag.StringVar(&o.list, "list", "", "`FILE` of tests in the place of the built-in quick.txt, in its form")
	flag.Func("run", "only the tests whose group or command line matches `REGEXP`", func(s string) (err error) {
		o.only, err = regexp.Compile(s)
		return err
	})
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, &o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\npiglit:", err)
		os.Exit(1)
	}
}
