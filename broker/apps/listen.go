package apps

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/mdlayher/vsock"
	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/unixsock"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
)

// DefaultPort is the vsock port of gpubroker ("GPB").
const DefaultPort = 0x475042

// anyCID is VMADDR_CID_ANY: whichever number this machine has.
const anyCID = 1<<32 - 1

// What connections that are turned away may take: they are told why.
const (
	maxStrangers = 4 // at a time, of those that are told
	strangerTime = 2 * time.Second
)

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

// serveVSock tells other guests than cid why they have no place here.
func (s *Service) serveVSock(c net.Conn, cid uint32) {
	if from := cidOf(c); cid != 0 && from != cid {
		s.log.Warn("another guest's vsock connection", zap.Stringer("from", c.RemoteAddr()), zap.Uint32("want", cid))
		s.refused(TransportVSock)
		s.turnAway(c, fmt.Errorf("%w: you have CID %d, it is for CID %d alone", ErrStranger, from, cid))
		return
	}
	s.client(TransportVSock)(c)
}

// turnAway closes a connection that cannot become a client, and says why if not too many
// are being told: strangers take no places of clients.
func (s *Service) turnAway(c net.Conn, why error) {
	select {
	case s.strangers <- struct{}{}:
		defer func() { <-s.strangers }()
	default:
		_ = c.Close()
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, strangerTime)
	defer cancel()
	// A peer that closes with something to read can take its last words with it, so the Hello comes first.
	_, _, _ = link.ServerHandshake(ctx, c, link.Limits{}, func(*link.Hello) (uint16, error) { return 0, why })
}

// cidOf returns 0, which no guest has, for what is no AF_VSOCK connection.
func cidOf(c net.Conn) uint32 {
	if a, ok := c.RemoteAddr().(*vsock.Addr); ok {
		return a.ContextID
	}
	return 0
}
