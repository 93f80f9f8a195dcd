package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/unixsock"
)

// ErrAddress says that an address is neither unix:PATH nor HOST:PORT.
var ErrAddress = errors.New("want unix:PATH or HOST:PORT")

// OpError is the error type of this package.
type OpError struct {
	Op   string // "listen on"
	Addr string
	Err  error
}

func (e *OpError) Error() string { return "metrics: " + e.Op + " " + e.Addr + ": " + e.Err.Error() }

func (e *OpError) Unwrap() error { return e.Err }

// Server answers scrapes over HTTP on /metrics. Close ends it.
type Server struct {
	ln   net.Listener
	http *http.Server
	done chan struct{}
}

// Limits of a client; one scrape is small and quick.
const (
	clientTimeout = 15 * time.Second
	maxScrapes    = 4 // at a time
	maxHeader     = 16 << 10
)

// CheckAddress says whether addr has a form that Listen knows.
func CheckAddress(addr string) error {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		if path == "" {
			return ErrAddress
		}
		return nil
	}
	if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
		return ErrAddress
	}
	return nil
}

// Listen serves on unix:PATH, which only this user can open, or HOST:PORT. source is
// called at each scrape, on goroutines of the server, one call at a time; it may block.
func Listen(addr string, source func() Snapshot, log *zap.Logger) (*Server, error) {
	if err := CheckAddress(addr); err != nil {
		return nil, &OpError{"listen on", addr, err}
	}
	var ln net.Listener
	var err error
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		ln, err = unixsock.Listen(path)
	} else {
		ln, err = net.Listen("tcp", addr)
	}
	if err != nil {
		return nil, &OpError{"listen on", addr, err}
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(&collector{source: source, patience: patience}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		MaxRequestsInFlight: maxScrapes,
		ErrorLog:            zap.NewStdLog(log),
	}))
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "gpubroker: metrics for Prometheus are at /metrics")
	})
	s := &Server{ln: ln, done: make(chan struct{})}
	s.http = &http.Server{
		Handler: mux, ReadTimeout: clientTimeout, WriteTimeout: clientTimeout, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: maxHeader, ErrorLog: zap.NewStdLog(log),
	}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics are not served any more", zap.Error(err))
		}
	}()
	return s, nil
}

// Addr returns where it listens, with the port that was chosen for port 0.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// closeTime is how long Close waits for scrapes under way.
const closeTime = time.Second

// Close stops serving and waits for the server's goroutines, but for those of scrapes
// that source keeps longer than a second.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	<-s.done
	return err
}
