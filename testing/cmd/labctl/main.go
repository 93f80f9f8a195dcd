// Command labctl uses the lab by hand: it runs programs of the lab root, boots
// guests and takes screenshots of a compositor.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		os.Exit(exit.ExitCode())
	}
	fmt.Fprintln(os.Stderr, "labctl:", err)
	os.Exit(1)
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "labctl",
		Short:         "Use the lab root, its guests and its compositors by hand",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(versionsCommand(), execCommand(), guestCommand(), kvmCommand(), shotCommand())
	return root
}
