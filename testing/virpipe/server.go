package virpipe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/gpubroker/gpubroker/testing/brokerproc"
	"github.com/gpubroker/gpubroker/testing/lab"
)

// Server is who draws.
type Server struct {
	Name   string
	Socket string             // VTEST_SOCKET_NAME; empty: nobody, the program draws itself
	Broker *brokerproc.Broker // nil if it is another

	stop func() error
}

// Direct is a program's own llvmpipe.
func Direct() *Server { return &Server{Name: "llvmpipe", stop: func() error { return nil }} }

// Stop ends it.
func (s *Server) Stop() error { return s.stop() }

// Gpubroker starts gpubroker serve without a guest.
func Gpubroker(ctx context.Context, root *lab.Root, binary string, args ...string) (*Server, error) {
	dir, err := os.MkdirTemp("", "virpipe-")
	if err != nil {
		return nil, err
	}
	s := &Server{Name: "gpubroker", Socket: filepath.Join(dir, "vtest.sock")}
	s.Broker, err = brokerproc.Start(ctx, root, brokerproc.Options{
		Binary: binary, NoGuest: true, Args: append([]string{"--vtest", s.Socket}, args...),
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	s.stop = func() error {
		_, err := s.Broker.Stop()
		return errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

// startTimeout bounds the start of virgl_test_server.
const startTimeout = 30 * time.Second

// Reference starts virgl_test_server, which makes a process for each client.
func Reference(ctx context.Context, root *lab.Root) (*Server, error) {
	dir, err := os.MkdirTemp("", "virpipe-")
	if err != nil {
		return nil, err
	}
	s := &Server{Name: "virgl_test_server", Socket: filepath.Join(dir, "vtest.sock")}
	cmd := root.Command(context.Background(), lab.CommandOptions{Env: []string{"LIBGL_ALWAYS_SOFTWARE=1"}},
		"virgl_test_server", "--use-egl-surfaceless", "--socket-path", s.Socket)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	cmd.Stdout, cmd.Stderr = log, log
	release, err := lab.Start(cmd)
	_ = log.Close()
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	s.stop = func() error {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // says that it was killed
		release()
		return os.RemoveAll(dir)
	}
	for end := time.Now().Add(startTimeout); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(s.Socket); err == nil {
			return s, nil
		}
		if ctx.Err() != nil || time.Now().After(end) {
			text, _ := os.ReadFile(log.Name())
			return nil, errors.Join(fmt.Errorf("virgl_test_server did not listen within %v: %s", startTimeout, text), s.stop())
		}
	}
}

// Env is what a program needs in its environment to draw there.
func (s *Server) Env() []string {
	if s.Socket == "" {
		return []string{"LIBGL_ALWAYS_SOFTWARE=true"}
	}
	return []string{"LIBGL_ALWAYS_SOFTWARE=true", "GALLIUM_DRIVER=virpipe", "VTEST_SOCKET_NAME=" + s.Socket}
}

// Command runs a program that draws there. env says where it shows what it drew.
func (s *Server) Command(ctx context.Context, root *lab.Root, env []string, bind []string, argv ...string) *exec.Cmd {
	return root.Command(ctx, lab.CommandOptions{Env: append(s.Env(), env...), Bind: bind}, argv...)
}
