package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/testing/dmabufcase"
	"github.com/gpubroker/gpubroker/testing/lab"
)

// workerReport is what a worker leaves in its folder.
type workerReport struct {
	Stages []dmabufcase.StageResult `json:"stages"`
}

const workerFile = "worker.json"

// work runs the stages of a host where it is, and writes their results to dir.
func work(ctx context.Context, host, binary, dir, only string) error {
	root, err := lab.Find()
	if err != nil {
		return err
	}
	if root.InGuest() {
		// The kernel's list of dma-bufs; without it they are not counted.
		if err := unix.Mount("debugfs", "/sys/kernel/debug", "debugfs", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount debugfs: %w", err)
		}
	}
	var rep workerReport
	var errs []error
	for _, cfg := range dmabufcase.Plan(host, binary, dir, os.Stdout) {
		if cfg.Cases = chosen(cfg, only); len(cfg.Cases) == 0 {
			continue
		}
		res, err := dmabufcase.Run(ctx, root, cfg)
		if err != nil {
			res.Problems = append(res.Problems, err.Error())
			errs = append(errs, err)
		}
		fmt.Printf("%s: %d cases, %.1f s\n", res.Name, len(res.Cases), res.Seconds)
		rep.Stages = append(rep.Stages, res)
	}
	body, err := json.MarshalIndent(rep, "", " ")
	if err != nil {
		return err
	}
	return errors.Join(errors.Join(errs...), os.WriteFile(filepath.Join(dir, workerFile), body, 0o644))
}

// chosen returns a stage's cases that -only names.
func chosen(cfg dmabufcase.Config, only string) []dmabufcase.Case {
	stage, name, _ := strings.Cut(only, "/")
	if !strings.Contains(cfg.Name, stage) {
		return nil
	}
	var cases []dmabufcase.Case
	for _, c := range cfg.Cases {
		if strings.Contains(c.Name, name) {
			cases = append(cases, c)
		}
	}
	return cases
}
