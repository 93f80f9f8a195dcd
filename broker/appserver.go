package broker

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/apps"
	"github.com/gpubroker/gpubroker/broker/crossdomain"
	"github.com/gpubroker/gpubroker/broker/keep"
	"github.com/gpubroker/gpubroker/broker/wayland"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// AppsConfig lets the guest's programs have windows of their own.
type AppsConfig struct {
	// Display is the compositor's socket, a name or a path; empty:
	// $WAYLAND_DISPLAY. It need not be there yet.
	Display string
	Policy  *proxy.Policy // nil: proxy.DefaultPolicy
	// VMName marks the windows: it is put before their titles, if the policy has
	// nothing to put there, and tells the compositor whose they are.
	VMName string
	// ImportSocket is the path to listen on for the front-end of the import device;
	// empty: none.
	ImportSocket string
	// Socket, VSock and Serial are where clients come from beside cross-domain
	// contexts, as in apps.Config; empty: not from there.
	Socket, VSock, Serial string
	// Folder is where sockets for the compositor are made; empty: $XDG_RUNTIME_DIR.
	Folder string
}

// appServer is everything that serves the guest's programs.
type appServer struct {
	names *Names
	proxy *proxy.Proxy
	imp   *importDevice // nil if nobody asked for it
	share bool          // what is imported can be shown: there is udmabuf
	link  *apps.Service // from listen on
	anon  atomic.Uint64 // clients without an identity so far
}

// newAppServer makes the proxy and the import device. The names' GPU comes later.
func newAppServer(cfg *AppsConfig, udmabuf *dmabuf.UDMABuf, kept *keep.Worker, log *zap.Logger) (a *appServer, err error) {
	a = &appServer{names: &Names{}}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	path, err := wayland.SocketPath(cfg.Display)
	if err != nil {
		return nil, err
	}
	policy := *proxy.DefaultPolicy()
	if cfg.Policy != nil {
		policy = *cfg.Policy
	}
	if cfg.VMName != "" && policy.TitlePrefix == "" {
		policy.TitlePrefix = "[" + cfg.VMName + "] "
	}
	a.proxy, err = proxy.New(proxy.Config{
		Display: path, Policy: &policy, Resources: a.names, VMName: cfg.VMName, VMID: cfg.VMName, Folder: cfg.Folder, Log: log.Named("apps"),
	})
	if err != nil {
		return nil, err
	}
	if cfg.ImportSocket != "" {
		if a.imp, err = newImportDevice(cfg.ImportSocket, udmabuf, kept, log.Named("import")); err != nil {
			return nil, err
		}
		a.names.Import, a.share = a.imp.dev, udmabuf != nil
		if !a.share {
			log.Info("guests' shared memory is copied: this machine has no udmabuf, so the import device is of no use")
		}
	}
	return a, nil
}

// listen lets clients in; the names' GPU is there.
func (a *appServer) listen(cfg *AppsConfig, log *zap.Logger) (err error) {
	a.link, err = apps.New(apps.Config{
		Handler: a, Log: log.Named("link"), Socket: cfg.Socket, VSock: cfg.VSock, Serial: cfg.Serial,
		GPU: true, Import: a.share,
	})
	return err
}

// Serve runs one client. One that does not say whose resources it names gets an
// identity that no context can have, so that what it imports is its own.
func (a *appServer) Serve(ctx context.Context, g proxy.Guest, owner proxy.Owner) error {
	if owner == (proxy.Owner{}) {
		owner.Token = fmt.Sprintf("\x00client %d", a.anon.Add(1))
	}
	return a.proxy.Serve(ctx, g, owner)
}

// channels serves cross-domain contexts.
func (a *appServer) channels() *crossdomain.Channels {
	return &crossdomain.Channels{
		Wayland: func(ctx context.Context, g proxy.Guest, id uint32) error {
			return a.Serve(ctx, g, proxy.Owner{Ctx: id})
		},
		Stream: func(ctx context.Context, rw io.ReadWriteCloser, id uint32) error {
			return a.link.ServeStream(ctx, rw, apps.TransportCrossDomain, proxy.Owner{Ctx: id})
		},
	}
}

// run serves until ctx ends. The channel gives the error.
func (a *appServer) run(ctx context.Context) <-chan error {
	done := make(chan error, 1)
	if a == nil || a.imp == nil {
		done <- nil
		return done
	}
	go func() { done <- a.imp.run(ctx) }()
	return done
}

func (a *appServer) close() {
	if a == nil {
		return
	}
	if a.link != nil {
		a.link.Close() // ends the clients that came that way
	}
	if a.proxy != nil {
		a.proxy.Close()
	}
	a.imp.close()
}

// AppsStatus counts what the guest's programs did.
type AppsStatus struct {
	Clients      int           `json:"clients"`       // now
	ClientsTotal uint64        `json:"clients_total"` // since the start
	Faults       uint64        `json:"faults"`        // of these, ended for an error or a limit
	Requests     uint64        `json:"requests"`      // messages from the guest
	Events       uint64        `json:"events"`        // messages from the compositor
	BytesCopied  uint64        `json:"bytes_copied"`
	Import       *ImportStatus `json:"import,omitempty"`
	Link         apps.Status   `json:"link"` // clients of gpubroker-guest
}

// status adds what is known of the guest's programs.
func (a *appServer) status(s *Status) {
	if a == nil {
		return
	}
	st := a.proxy.Stats()
	s.Apps = &AppsStatus{
		Clients: a.proxy.Clients(), ClientsTotal: st.Clients.Load(), Faults: st.Faults.Load(),
		Requests: st.Requests.Load(), Events: st.Events.Load(), BytesCopied: st.BytesCopied.Load(), Import: a.imp.status(),
	}
	if a.link != nil {
		s.Apps.Link = a.link.Status()
	}
	s.Windows = a.proxy.Windows()
}
