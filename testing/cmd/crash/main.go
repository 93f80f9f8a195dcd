// Command crash lets the renderer die in the middle of a real guest's frames, once
// under a program that draws off the screen and once under one that has the screen,
// and shows that the console stays, that a new program draws, and that the log names
// who did it. It writes out/crash/report.json and screenshots from before and after.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\ncrash:", err)
		os.Exit(1)
	}
}
