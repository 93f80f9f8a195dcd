package smoke

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/confine"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// probeKernel tries what the kernel gives without a GPU.
func probeKernel(_ context.Context, p *probe) {
	p.begin("memfd", "")
	p.end(checkMemfd())
	p.begin("udmabuf", "")
	row := checkUDMABuf()
	if row.State == OK {
		p.found(findings{UDMABuf: true})
	}
	p.end(row)
	p.begin("dma-heap", "")
	p.end(checkHeaps())
	p.begin("vsock", "")
	p.end(checkVsock())
	p.begin("limit.memlock", "")
	p.end(checkMemlock())
	p.begin("limit.nofile", "")
	p.end(checkNofile())
	p.begin("sandbox", "")
	p.end(checkSandbox())
}

const probeSize = 1 << 20

func pattern(i int) byte { return byte(i*7 + i>>8) }

// checkMemfd: shared memory with a sealed size, which carries frames and guest memory.
func checkMemfd() Row {
	bad := func(err error) Row {
		return Row{State: Failed, Needed: true, Seen: "no sealed shared memory", Cause: err.Error(),
			Fix: "a kernel with CONFIG_MEMFD_CREATE, and a sandbox that lets memfd_create and F_ADD_SEALS pass"}
	}
	fd, err := dmabuf.NewMemfd("smoke", probeSize)
	if err != nil {
		return bad(err)
	}
	defer func() { _ = fd.Close() }()
	seals, err := dmabuf.Seals(fd)
	if err != nil {
		return bad(err)
	}
	if err := unix.Ftruncate(fd.Int(), 0); err == nil {
		return bad(fmt.Errorf("a file with seals %#x could be cut", seals))
	}
	mem, err := dmabuf.Map(fd, probeSize, true)
	if err != nil {
		return bad(err)
	}
	defer func() { _ = dmabuf.Unmap(mem) }()
	for i := range mem {
		mem[i] = pattern(i)
	}
	return Row{State: OK, Seen: fmt.Sprintf("%d KiB written; the file cannot be cut (seals %#x)", probeSize>>10, seals)}
}

// checkUDMABuf: pages of shared memory as a dma-buf, and the same bytes in both.
func checkUDMABuf() Row {
	const fix = "sudo modprobe udmabuf; give the user access to /dev/udmabuf (Debian: sudo usermod -aG kvm $USER)"
	bad := func(err error) Row {
		r := Row{State: Failed, Seen: "the dma-buf does not work", Cause: err.Error()}
		if errors.Is(err, dmabuf.ErrNotSupported) {
			r.State, r.Seen, r.Fix = Degraded, "guest pages cannot become dma-bufs: they go to the compositor as shared memory", fix
		}
		return r
	}
	u, err := dmabuf.OpenUDMABuf()
	if err != nil {
		return bad(err)
	}
	defer func() { _ = u.Close() }()
	fd, err := dmabuf.NewMemfd("smoke", probeSize)
	if err != nil {
		return bad(err)
	}
	defer func() { _ = fd.Close() }()
	mem, err := dmabuf.Map(fd, probeSize, true)
	if err != nil {
		return bad(err)
	}
	defer func() { _ = dmabuf.Unmap(mem) }()
	for i := range mem {
		mem[i] = pattern(i)
	}
	// Two parts in the wrong order, as scattered guest pages are.
	const half = probeSize / 2
	buf, err := u.CreateList([]dmabuf.Span{{FD: fd, Offset: half, Size: half}, {FD: fd, Size: half}})
	if err != nil {
		return bad(err)
	}
	defer func() { _ = buf.Close() }()
	got, err := dmabuf.Map(buf, probeSize, false)
	if err != nil {
		return bad(err)
	}
	defer func() { _ = dmabuf.Unmap(got) }()
	for i, b := range got {
		if want := pattern((i + half) % probeSize); b != want {
			return bad(fmt.Errorf("byte %d of the dma-buf is %#x, the page has %#x", i, b, want))
		}
	}
	list, bytes := dmabuf.UDMABufLimits()
	return Row{State: OK, Seen: fmt.Sprintf("a dma-buf of scattered pages has the pages' bytes (limits: %d pieces, %s)", list, size(uint64(bytes)))}
}

// checkHeaps: dma-bufs that need no GPU at all.
func checkHeaps() Row {
	names := dmabuf.Heaps()
	if len(names) == 0 {
		return Row{State: Skipped, Seen: "none, and gpubroker does without", Cause: "/dev/dma_heap has no heaps",
			Fix: "a kernel with CONFIG_DMABUF_HEAPS and CONFIG_DMABUF_HEAPS_SYSTEM"}
	}
	var items []Item
	ok := 0
	for _, name := range names {
		it := Item{Name: name, State: OK, Seen: "a page allocated"}
		if err := dmabuf.ProbeHeap(name); err != nil {
			it.State, it.Seen = Skipped, err.Error()
		} else {
			ok++
		}
		items = append(items, it)
	}
	r := Row{State: OK, Seen: fmt.Sprintf("%d of %d heaps give memory: %s", ok, len(names), strings.Join(names, ", ")), Items: items}
	if ok == 0 {
		r.State, r.Cause, r.Fix = Skipped, items[0].Seen, "access to /dev/dma_heap for this user; gpubroker does without"
	}
	return r
}

// ioctlLocalCID is IOCTL_VM_SOCKETS_GET_LOCAL_CID (linux/vm_sockets.h).
const ioctlLocalCID = 0x7b9

// checkVsock: how a guest's programs reach the host without a network.
func checkVsock() Row {
	const fix = "sudo modprobe vhost_vsock; give the user access to /dev/vhost-vsock (Debian: sudo usermod -aG kvm $USER)"
	bad := func(seen string, err error) Row {
		return Row{State: Degraded, Seen: seen, Cause: err.Error(), Fix: fix}
	}
	s, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return bad("no vsock sockets: guests' programs cannot reach the host without a network", fmt.Errorf("AF_VSOCK: %w", err))
	}
	sock := dmabuf.NewFD(s, "vsock")
	defer func() { _ = sock.Close() }()
	if err := unix.Bind(s, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: unix.VMADDR_PORT_ANY}); err != nil {
		return bad("sockets cannot listen", fmt.Errorf("bind: %w", err))
	}
	if err := unix.Listen(s, 1); err != nil {
		return bad("sockets cannot listen", fmt.Errorf("listen: %w", err))
	}
	raw, err := unix.Open("/dev/vhost-vsock", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return bad("sockets work, but no guest can be given one", fmt.Errorf("/dev/vhost-vsock: %w", err))
	}
	_ = unix.Close(raw)
	cid := "unknown"
	if dev, err := unix.Open("/dev/vsock", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		if n, err := unix.IoctlGetInt(dev, ioctlLocalCID); err == nil {
			cid = fmt.Sprint(uint32(n))
		}
		_ = unix.Close(dev)
	}
	return Row{State: OK, Seen: "a socket listens, /dev/vhost-vsock opens (own CID " + cid + ")"}
}

// Limits below which something may not work.
const (
	wantMemlock = 8 << 20 // bytes; the default of Linux 5.16
	wantNofile  = 4096    // a buffer of a guest needs one to four
	needNofile  = 256
)

// checkMemlock locks memory, which drivers do for buffers that the GPU reads.
func checkMemlock() Row {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &lim); err != nil {
		return Row{State: Failed, Seen: "unknown", Cause: err.Error()}
	}
	seen := size(lim.Cur)
	mem, err := unix.Mmap(-1, 0, probeSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err == nil {
		err = unix.Mlock(mem)
		_ = unix.Munmap(mem)
	}
	const fix = "LimitMEMLOCK=64M in the systemd unit, or 'memlock' in /etc/security/limits.conf"
	switch {
	case err != nil:
		return Row{State: Degraded, Seen: seen + "; 1 MiB could not be locked", Cause: err.Error(), Fix: fix}
	case lim.Cur < wantMemlock:
		return Row{State: Degraded, Seen: seen + "; 1 MiB was locked", Cause: "some drivers lock more than that; " + size(wantMemlock) + " is usual", Fix: fix}
	}
	return Row{State: OK, Seen: seen + "; 1 MiB was locked"}
}

// checkNofile uses a descriptor near the limit.
func checkNofile() Row {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return Row{State: Failed, Seen: "unknown", Cause: err.Error()}
	}
	const fix = "LimitNOFILE=65536 in the systemd unit, or 'nofile' in /etc/security/limits.conf"
	// The Go runtime raises the soft limit to the hard one, but for one where it stands
	// right below, so the hard one is what a user has set.
	seen := fmt.Sprintf("%d descriptors", lim.Max)
	high := int(min(lim.Cur, wantNofile)) - 1
	fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, high)
	if err == nil {
		_ = unix.Close(fd)
	}
	switch {
	case lim.Max < needNofile || err != nil:
		r := Row{State: Failed, Needed: true, Seen: seen, Cause: fmt.Sprintf("a guest's desktop alone needs more than %d", needNofile), Fix: fix}
		if err != nil {
			r.Cause = fmt.Sprintf("descriptor %d cannot be had: %v", high, err)
		}
		return r
	case lim.Max < wantNofile:
		return Row{State: Degraded, Seen: seen, Cause: fmt.Sprintf("every shared buffer needs one to four; %d leave no room for many", wantNofile), Fix: fix}
	}
	return Row{State: OK, Seen: seen}
}

// checkSandbox has a thread lose files and system calls, as serve --sandbox does to its
// workers. Without that option nobody misses it.
func checkSandbox() Row {
	const fix = "Linux 6.10 or later with CONFIG_SECURITY_LANDLOCK and CONFIG_SECCOMP_FILTER, and landlock in the list of the kernel's option lsm= (/sys/kernel/security/lsm)"
	v, err := confine.Try()
	if err != nil {
		return Row{State: Skipped, Seen: "serve --sandbox does not work here", Cause: err.Error(), Fix: fix}
	}
	r := Row{State: OK, Seen: fmt.Sprintf("a thread lost its files (landlock %d) and system calls (seccomp): serve --sandbox works", v)}
	left, err := confine.Missing()
	if err == nil && len(left) > 0 {
		r.Seen += ", but leaves " + strings.Join(left, ", ")
		r.Fix = fix
	}
	return r
}

func size(n uint64) string {
	switch {
	case n >= 1<<50: // RLIM_INFINITY, and more than any machine has
		return "unlimited"
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
