package apps

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/mdlayher/vsock"
	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/unixsock"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
)

// DefaultPort is the vsock port of gpubroker ("GPB").
const DefaultPort = 0x475042

// anyCID is VMADDR_CID_ANY: whichever number this machine has.
const anyCID = 1<<32 - 1

// VSock is where vsock streams come from.
type VSock struct {
	// Path, if not empty, is the path that the VMM's hybrid vsock was given; the VMM
	// connects to Path_Port when the guest connects to Port of the host.
	Path string
	Port uint32
	// CID, if not 0, is the guest that may connect to the AF_VSOCK port; others are
	// turned away.
	CID uint32
}

// ParseVSock reads what --vsock says: PORT or CID:PORT for AF_VSOCK of this host's
// kernel, unix:PATH or unix:PATH:PORT for the socket of a VMM. Without a port, or with
// port 0, it is DefaultPort.
func ParseVSock(s string) (VSock, error) {
	bad := func(why string) (VSock, error) {
		return VSock{}, fmt.Errorf("vsock %q: %s; want PORT, CID:PORT, unix:PATH or unix:PATH:PORT", s, why)
	}
	v := VSock{Port: DefaultPort}
	port := s
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		v.Path, port = path, ""
		if i := strings.LastIndexByte(path, ':'); i >= 0 {
			v.Path, port = path[:i], path[i+1:]
		}
		if v.Path == "" {
			return bad("no path")
		}
	} else if cid, rest, ok := strings.Cut(s, ":"); ok {
		n, err := strconv.ParseUint(cid, 10, 32)
		if err != nil || n == 0 {
			return bad("bad CID")
		}
		v.CID, port = uint32(n), rest
	} else if s == "" {
		return bad("empty")
	}
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 32)
		if err != nil || n == 1<<32-1 { // VMADDR_PORT_ANY
			return bad("bad port")
		}
		if n != 0 {
			v.Port = uint32(n)
		}
	}
	return v, nil
}

// listen opens what the Config names.
func (s *Service) listen() error {
	if s.cfg.Socket != "" {
		if err := s.listenUnix(s.cfg.Socket, TransportUnix, s.client(TransportUnix)); err != nil {
			return err
		}
	}
	if s.cfg.Serial != "" {
		if err := s.listenUnix(s.cfg.Serial, TransportSerial, s.serveSerial); err != nil {
			return err
		}
	}
	if s.cfg.VSock == "" {
		return nil
	}
	v, err := ParseVSock(s.cfg.VSock)
	if err != nil {
		return err
	}
	if v.Path != "" {
		return s.listenUnix(fmt.Sprintf("%s_%d", v.Path, v.Port), TransportVSock, s.client(TransportVSock))
	}
	l, err := vsock.ListenContextID(anyCID, v.Port, nil)
	if err != nil {
		return fmt.Errorf("vsock port %d: %w", v.Port, err)
	}
	if v.CID == 0 {
		s.log.Warn("every guest of this host may connect to the vsock port: name the guest's CID", zap.Uint32("port", v.Port))
	}
	s.accept(l, TransportVSock, func(c net.Conn) { s.serveVSock(c, v.CID) })
	return nil
}

func (s *Service) listenUnix(path, transport string, serve func(net.Conn)) error {
	l, err := unixsock.Listen(path)
	if err != nil {
		return err
	}
	s.accept(l, transport, serve)
	return nil
}

// client returns what serves a connection that carries one client.
func (s *Service) client(transport string) func(net.Conn) {
	return func(c net.Conn) { _ = s.serve(s.ctx, c, transport, proxy.Owner{}) }
}

// serveVSock turns other guests than cid away.
func (s *Service) serveVSock(c net.Conn, cid uint32) {
	if a, ok := c.RemoteAddr().(*vsock.Addr); cid != 0 && (!ok || a.ContextID != cid) {
		s.log.Warn("another guest's vsock connection", zap.Stringer("from", c.RemoteAddr()), zap.Uint32("want", cid))
		s.refused(TransportVSock)
		_ = c.Close()
		return
	}
	s.client(TransportVSock)(c)
}
