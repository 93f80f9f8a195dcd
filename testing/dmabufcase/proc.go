package dmabufcase

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Held is what processes hold on to.
type Held struct {
	BrokerFDs   int   `json:"broker_fds"`
	BrokerRSSKB int   `json:"broker_rss_kb"`
	WestonFDs   int   `json:"weston_fds"`
	WestonRSSKB int   `json:"weston_rss_kb"`
	ImportsLive int64 `json:"imports_live"`
	// DMABufs counts the kernel's dma-bufs, -1 where it does not say.
	DMABufs int `json:"dmabufs"`
}

// sameCounts compares everything but memory, which is never exactly the same.
func (h Held) sameCounts(o Held) bool {
	h.BrokerRSSKB, h.WestonRSSKB = o.BrokerRSSKB, o.WestonRSSKB
	return h == o
}

// noMoreThan reports whether h has no more than before had.
func (h Held) noMoreThan(before Held) bool {
	return h.BrokerFDs <= before.BrokerFDs && h.WestonFDs <= before.WestonFDs &&
		h.ImportsLive <= before.ImportsLive && h.DMABufs <= before.DMABufs
}

func openFDs(pid int) (int, error) {
	ents, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0, fmt.Errorf("count descriptors: %w", err)
	}
	return len(ents), nil
}

// rssKB is the memory that a process has in RAM, in KiB, without shared memory
// (proc(5), RssAnon and RssFile): llvmpipe takes all memory that can be exported from
// one memfd, lp_dma_buf, whose pages stay once they were used; the kernel's count of
// dma-bufs is what tells of buffers left behind.
func rssKB(pid int) (sum int, err error) {
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read memory use: %w", err)
	}
	for line := range strings.Lines(string(body)) {
		name, rest, _ := strings.Cut(line, ":")
		if name != "RssAnon" && name != "RssFile" {
			continue
		}
		n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
		if err != nil {
			return 0, fmt.Errorf("read memory use: %s: %w", strings.TrimSpace(line), err)
		}
		sum += n
	}
	if sum == 0 {
		return 0, fmt.Errorf("read memory use: process %d has no RssAnon", pid)
	}
	return sum, nil
}

// processWith finds the process of that name with an argument that contains arg.
func processWith(name, arg string) (int, error) {
	procs, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return 0, err
	}
	for _, comm := range procs {
		got, err := os.ReadFile(comm)
		if err != nil || strings.TrimSpace(string(got)) != name {
			continue // gone, or another
		}
		dir := filepath.Dir(comm)
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err == nil && bytes.Contains(env, []byte(arg)) {
			return strconv.Atoi(filepath.Base(dir))
		}
	}
	return 0, fmt.Errorf("no process %s with %s in its environment", name, arg)
}

// bufinfo lists the kernel's dma-bufs, with debugfs mounted.
const bufinfo = "/sys/kernel/debug/dma_buf/bufinfo"

// liveDMABufs counts the dma-bufs of the whole machine, -1 if it cannot be known.
func liveDMABufs() (int, error) {
	f, err := os.Open(bufinfo)
	if errors.Is(err, os.ErrNotExist) {
		return -1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("count dma-bufs: %w", err)
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var n int
		if _, err := fmt.Sscanf(lines.Text(), "Total %d objects", &n); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("count dma-bufs: %s has no total", bufinfo)
}
