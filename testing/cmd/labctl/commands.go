package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpubroker/gpubroker/testing/lab"
)

func versionsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "versions",
		Short: "Print what the lab root was built from",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			root, err := lab.Find()
			if err != nil {
				return err
			}
			versions, err := root.Versions()
			if err != nil {
				return err
			}
			fmt.Println("root", root.Path)
			for _, name := range slices.Sorted(maps.Keys(versions)) {
				fmt.Println(name, versions[name])
			}
			return nil
		},
	}
}

func execCommand() *cobra.Command {
	var opt lab.CommandOptions
	cmd := &cobra.Command{
		Use:   "exec [--env NAME=VALUE]... [--bind DIR]... -- PROGRAM [ARG]...",
		Short: "Run a program of the lab root in its sandbox",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			root, err := lab.Find()
			if err != nil {
				return err
			}
			c := root.Command(cmd.Context(), opt, argv...)
			c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
			return c.Run()
		},
	}
	cmd.Flags().StringArrayVar(&opt.Env, "env", nil, "environment variable for the program")
	cmd.Flags().StringArrayVar(&opt.Bind, "bind", nil, "host folder to show, writable, at the same path")
	return cmd
}

func guestCommand() *cobra.Command {
	var cfg lab.VMConfig
	var console bool
	cmd := &cobra.Command{
		Use:   "guest [flags] SCRIPT [-- QEMU-ARG...]",
		Short: "Boot a guest, run a shell script in it (- reads it from stdin), power it off",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			script := args[0]
			if script == "-" {
				body, err := io.ReadAll(os.Stdin)
				if err != nil {
					return err
				}
				script = string(body)
			}
			root, err := lab.Find()
			if err != nil {
				return err
			}
			cfg.Devices = args[1:]
			cfg.Output = os.Stdout
			if console {
				cfg.Console = os.Stderr
			}
			start := time.Now()
			vm, err := root.StartVM(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			defer vm.Close()
			if err := vm.WaitBoot(cmd.Context(), 1); err != nil {
				return err
			}
			accel := strings.ToUpper(vm.Config.Accel)
			fmt.Fprintf(os.Stderr, "labctl: user space after %.1f s under %s\n", time.Since(start).Seconds(), accel)
			_, code, err := vm.Run(cmd.Context(), script)
			if err != nil {
				return err
			}
			if code != 0 {
				return fmt.Errorf("the script ended with code %d", code)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.QEMU, "qemu", lab.QEMU11, "version of QEMU: "+lab.QEMU11+" or "+lab.QEMU10)
	f.StringVar(&cfg.Accel, "accel", lab.AccelAuto, "kvm or tcg; the better one that works if empty")
	f.IntVar(&cfg.MemMB, "mem", 0, "guest memory in MiB (default 2048)")
	f.IntVar(&cfg.SMP, "smp", 0, "virtual CPUs (default 2)")
	f.BoolVar(&cfg.UEFI, "uefi", false, "boot through OVMF")
	f.StringVar(&cfg.Display, "display", "none", "value of QEMU's -display")
	f.StringVar(&cfg.KernelArgs, "append", "", "further kernel arguments")
	f.StringVar(&cfg.Share, "share", "", "host folder to show as /lab/share")
	f.BoolVar(&console, "console", false, "show the guest's console")
	return cmd
}

func kvmCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "kvm",
		Short: "Say whether a Linux guest really boots under KVM here (a probe boot, kept)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			root, err := lab.Find()
			if err != nil {
				return err
			}
			fmt.Println(root.KVMWorks(cmd.Context()))
			return nil
		},
	}
}
