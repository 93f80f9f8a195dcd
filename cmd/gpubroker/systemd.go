package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// firstFD is SD_LISTEN_FDS_START of sd_listen_fds(3).
const firstFD = 3

// maxActivated bounds the descriptors that are looked at; three have names that count.
const maxActivated = 16

// activated takes the listening sockets that systemd passes (sd_listen_fds(3)): those
// with the FileDescriptorName gpu, input or touch; a single one without a name is the
// GPU's. The variables are cleared, so that children do not take them for theirs.
func activated() (a broker.Activated, err error) {
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	if pid != strconv.Itoa(os.Getpid()) {
		return a, nil
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if err := os.Unsetenv(name); err != nil {
			return a, err
		}
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > maxActivated {
		return a, fmt.Errorf("LISTEN_FDS=%q: want a number up to %d", count, maxActivated)
	}
	list := strings.Split(names, ":")
	for i := range n {
		name := ""
		if i < len(list) {
			name = list[i]
		}
		if n == 1 && name != "input" && name != "touch" {
			name = "gpu" // systemd names sockets after their unit if nobody else does
		}
		unix.CloseOnExec(firstFD + i)
		fd := dmabuf.NewFD(firstFD+i, "systemd socket "+name)
		slot := map[string]**dmabuf.FD{"gpu": &a.GPU, "input": &a.Input, "touch": &a.Touch}[name]
		if slot == nil || *slot != nil {
			_ = fd.Close()
			err = errors.Join(err, fmt.Errorf("systemd's socket %d is named %q: want FileDescriptorName gpu, input or touch, each once", i, name))
			continue
		}
		*slot = fd
	}
	if err != nil {
		a.Close()
	}
	return a, err
}

// notify tells systemd how the service stands (sd_notify(3)); without systemd it does
// nothing. That nobody listens is nobody's loss.
func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if name, ok := strings.CutPrefix(path, "@"); ok {
		path = "\x00" + name
	}
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		return
	}
	_, _ = conn.Write([]byte(state))
	_ = conn.Close()
}
