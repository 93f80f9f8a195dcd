package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/dmabufcase"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/report"
)

// workTime bounds the cases of one host.
const workTime = 15 * time.Minute

// programs are the binaries that a run needs, in a folder of their own.
type programs struct {
	dir, broker, self string
}

func buildPrograms(ctx context.Context) (*programs, error) {
	dir, err := os.MkdirTemp("", "gpubroker-dmabuf-")
	if err != nil {
		return nil, err
	}
	p := &programs{dir: dir, broker: filepath.Join(dir, "gpubroker"), self: filepath.Join(dir, "dmabuf")}
	err = brokerproc.Build(ctx, p.broker)
	if err == nil {
		err = lab.Build(ctx, "github.com/gpubroker/gpubroker/testing/cmd/dmabuf", p.self)
	}
	if err != nil {
		p.remove()
		return nil, err
	}
	return p, nil
}

func (p *programs) remove() { _ = os.RemoveAll(p.dir) }

// run runs the cases on the hosts and writes the report.
func run(ctx context.Context, hosts, only string) error {
	start := time.Now()
	out, err := report.NewDir("dmabuf")
	if err != nil {
		return err
	}
	root, err := lab.Find()
	if err != nil {
		return err
	}
	fmt.Println("building gpubroker and the cases")
	progs, err := buildPrograms(ctx)
	if err != nil {
		return err
	}
	defer progs.remove()
	rep := &reportJSON{}
	if rep.Versions, err = root.Versions(); err != nil {
		return err
	}
	var errs []error
	for _, host := range strings.Split(hosts, ",") {
		stages, err := runHost(ctx, root, progs, host, only, out.Path)
		rep.Stages = append(rep.Stages, stages...)
		if err != nil {
			errs = append(errs, fmt.Errorf("host %s: %w", host, err))
		}
	}
	rep.Seconds = time.Since(start).Seconds()
	rep.sum()
	if err := out.JSON(rep); err != nil {
		return err
	}
	rep.print(os.Stdout)
	fmt.Printf("wrote %s/report.json and the screenshots beside it, %.1f s\n", out.Path, rep.Seconds)
	return errors.Join(append(errs, rep.verdict())...)
}

func runHost(ctx context.Context, root *lab.Root, progs *programs, host, only, out string) ([]dmabufcase.StageResult, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, workTime, fmt.Errorf("not done within %v", workTime))
	defer cancel()
	switch host {
	case dmabufcase.HostVM:
		err := runVM(ctx, root, progs, lab.VMConfig{}, out, fmt.Sprintf("-worker %s -only '%s'", host, only))
		stages, readErr := readWorker(out)
		return stages, errors.Join(err, readErr)
	case dmabufcase.HostPlain:
		fmt.Println("running the cases on this machine")
		err := work(ctx, host, progs.broker, out, only)
		stages, readErr := readWorker(out)
		return stages, errors.Join(err, readErr)
	}
	return nil, fmt.Errorf("unknown host: want %s or %s", dmabufcase.HostVM, dmabufcase.HostPlain)
}

// inVM is where the programs lie in the machine: in memory, not on the share.
const inVM = "/tmp/dmabuf"

// runVM boots the machine that has dma-bufs, runs this command in it with the
// arguments of a worker, and copies what it leaves to out.
func runVM(ctx context.Context, root *lab.Root, progs *programs, cfg lab.VMConfig, out, worker string) error {
	fmt.Println("booting a virtual machine that has dma-bufs")
	begun := time.Now()
	cfg.Output = os.Stdout
	vm, err := root.StartHostVM(ctx, cfg)
	if err != nil {
		return err
	}
	defer vm.Close()
	for _, file := range []string{progs.broker, progs.self} {
		if _, err := vm.PutFile(file); err != nil {
			return err
		}
	}
	fmt.Printf("it is up after %.1f s (accelerator: %s)\n", time.Since(begun).Seconds(), vm.Config.Accel)
	script := fmt.Sprintf(`set -e
mkdir -p %[1]s /lab/share/out
cp /lab/share/gpubroker /lab/share/dmabuf %[1]s/
cd %[1]s
exec ./dmabuf %[2]s -gpubroker %[1]s/gpubroker -dir /lab/share/out
`, inVM, worker)
	_, code, err := vm.Run(ctx, script)
	if err == nil && code != 0 {
		err = fmt.Errorf("the cases in the virtual machine ended with code %d", code)
	}
	return errors.Join(err, copyFiles(filepath.Join(vm.Share, "out"), out))
}

func readWorker(dir string) ([]dmabufcase.StageResult, error) {
	path := filepath.Join(dir, workerFile)
	body, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the results: %w", err)
	}
	var rep workerReport
	if err := json.Unmarshal(body, &rep); err != nil {
		return nil, fmt.Errorf("read the results: %w", err)
	}
	return rep.Stages, os.Remove(path)
}

// copyFiles copies the files of a folder.
func copyFiles(from, to string) error {
	ents, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range ents {
		if err := copyFile(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}
