package main

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/record"
)

// recordOptions are those of a recording.
type recordOptions struct {
	file, limit string
	fd          int // descriptor of the file, which a supervisor opened
}

func (o *recordOptions) register(f *pflag.FlagSet) {
	f.StringVar(&o.file, "record", "", "write all that the guest does, with its pixels, to `FILE` for gpubroker replay; it must not exist, or be empty")
	f.StringVar(&o.limit, "record-limit", "1G", "`SIZE` at which the recording ends; the guest runs on")
	f.IntVar(&o.fd, "record-fd", -1, "the file of --record")
	_ = f.MarkHidden("record-fd") // it exists
}

// leastRecording is the least --record-limit.
const leastRecording = 64 << 10

func (o *recordOptions) check() error {
	if n, err := parseSize(o.limit); err != nil || n < leastRecording {
		return fmt.Errorf("--record-limit %q: want a size from 64K on, such as 100M", o.limit)
	}
	return nil
}

// open makes the file, nil if there is to be none.
func (o *recordOptions) open() (*os.File, error) {
	if o.file == "" {
		return nil, nil
	}
	return record.Open(o.file)
}

// start begins the recording of this process, nil if there is to be none. What a worker
// that follows another does is not recorded.
func (o *recordOptions) start(log *zap.Logger, worker bool) (*record.Writer, error) {
	if o.file == "" {
		return nil, nil
	}
	limit, err := parseSize(o.limit)
	if err != nil {
		return nil, err // check has looked at it
	}
	if !worker {
		return record.Create(o.file, limit)
	}
	if o.fd < 0 {
		log.Warn("the recording ended with the worker before, and is kept; this one does not record", zap.String("file", o.file))
		return nil, nil
	}
	if _, err := unix.FcntlInt(uintptr(o.fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return nil, usageError{fmt.Errorf("--record-fd %d: %w", o.fd, err)}
	}
	return record.NewWriter(os.NewFile(uintptr(o.fd), o.file), o.file, limit), nil
}
