package clients_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/apps"
	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/clients"
	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// guestCID is the guest's.
const guestCID = 3

// TestVSockGuest has a client in a guest, over the kernel's vhost-vsock; TestNestedVSock runs
// it where there is one.
func TestVSockGuest(t *testing.T) {
	root, p := vsockPrograms(t)
	desktop := labtest.Weston(t, lab.WestonOptions{Shell: "desktop", W: 800, H: 600})
	start := func(vsock string) *brokerproc.Broker {
		b, err := brokerproc.Start(t.Context(), root, brokerproc.Options{Binary: p.Broker, Args: []string{
			"--display", "none", "--virgl=off", "--apps", "--apps-display", desktop.Socket(), "--vsock", vsock,
		}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	own := start(fmt.Sprintf("%d:%d", guestCID, vsockPort))
	other := start(fmt.Sprintf("%d:%d", strangerCID, strangerPort))
	defer func() {
		if _, err := other.Stop(); err != nil {
			t.Error(err)
		}
	}()
	cfg, why := lab.InnerConfig(t.Context(), 12*time.Minute)
	if why != "" {
		t.Logf("no KVM in the machine, the guest in it takes ten times as long: %s", why)
	}
	cfg.Devices = []string{"-device", fmt.Sprintf("vhost-vsock-pci,guest-cid=%d", guestCID)}
	vm := labtest.VM(t, cfg)
	if _, err := vm.PutFile(p.Guest); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if out, err := vm.Check(t.Context(), "modprobe vmw_vsock_virtio_transport && ls /dev/vsock && cp /lab/share/gpubroker-guest /tmp/"); err != nil {
		t.Fatal(err, out)
	}
	t.Logf("the guest is up after %.0f s (%s)", time.Since(begun).Seconds(), vm.Config.Accel)

	ends(t, vsockClient(t, vm, fmt.Sprintf("--transport vsock:2:%d", strangerPort)), "you have CID 3, it is for CID 77 alone")
	if got := status(t, other).Apps.Link.Transports[apps.TransportVSock]; got.Refused != 1 || got.Clients != 0 {
		t.Errorf("the other broker counted %+v", got)
	}
	// It finds this way by itself: there is no GPU.
	client := vsockClient(t, vm, "")
	waitFrames(t, own, 1, 5, client)
	if _, err := own.Stop(); err != nil {
		t.Error(err)
	}
	ends(t, client, fmt.Sprintf("vsock 2:%d", vsockPort), apps.ErrClosed.Error())
}

// guestClient is a client in the guest; its files are in the share.
type guestClient struct {
	log, rc string
}

// vsockClient starts weston-simple-shm in the guest.
func vsockClient(t *testing.T, vm *lab.VM, options string) clients.Client {
	t.Helper()
	base := fmt.Sprintf("client-%d", time.Now().UnixNano())
	if _, err := vm.Check(t.Context(), fmt.Sprintf(`cd /tmp
setsid bash -c '/tmp/gpubroker-guest run %[1]s weston-simple-shm; echo $? >/lab/share/%[2]s.rc' </dev/null >/lab/share/%[2]s.log 2>&1 &
`, options, base)); err != nil {
		t.Fatal(err)
	}
	return &guestClient{filepath.Join(vm.Share, base+".log"), filepath.Join(vm.Share, base+".rc")}
}

func (c *guestClient) Ended(context.Context) (bool, int, error) {
	body, err := os.ReadFile(c.rc)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(body) == 0 {
		return false, 0, nil
	}
	if err != nil {
		return false, 0, err
	}
	code, err := strconv.Atoi(strings.TrimSpace(string(body)))
	return true, code, err
}

func (c *guestClient) Log() string {
	body, _ := os.ReadFile(c.log) // there is none before it has run
	return string(body)
}

// Stop does nothing: it ends with the guest.
func (c *guestClient) Stop() {}
