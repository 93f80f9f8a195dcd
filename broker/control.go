package broker

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/gpubroker/gpubroker/broker/unixsock"
)

// controlTimeout is how long a client of the control socket may take to ask or
// to read the answer.
const controlTimeout = 5 * time.Second

// Control answers requests on a unix stream socket: one line, "status" or
// "counters", is answered with one JSON object and the end of the stream. An
// unknown request gets {"error": …}.
type Control struct {
	ln     *net.UnixListener
	status func(table bool) Status
	wg     sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{} // guarded by mu
}

// ListenControl serves the socket at path, replacing one that nobody serves.
func ListenControl(path string, status func(table bool) Status) (*Control, error) {
	ln, err := unixsock.Listen(path)
	if err != nil {
		return nil, &OpError{Op: "listen on control socket", Object: path, Err: err}
	}
	c := &Control{ln: ln, status: status, conns: map[net.Conn]struct{}{}}
	c.wg.Add(1)
	go c.accept()
	return c, nil
}

func (c *Control) accept() {
	defer c.wg.Done()
	for {
		conn, err := c.ln.Accept()
		if err != nil {
			return // closed
		}
		c.mu.Lock()
		c.conns[conn] = struct{}{}
		c.mu.Unlock()
		c.wg.Add(1)
		go c.serve(conn)
	}
}

func (c *Control) serve(conn net.Conn) {
	defer c.wg.Done()
	defer func() {
		_ = conn.Close()
		c.mu.Lock()
		delete(c.conns, conn)
		c.mu.Unlock()
	}()
	_ = conn.SetDeadline(time.Now().Add(controlTimeout))
	line, err := bufio.NewReaderSize(conn, 256).ReadSlice('\n')
	if err != nil && len(line) == 0 {
		return
	}
	var answer any
	switch req := strings.TrimSpace(string(line)); req {
	case "status":
		answer = c.status(true)
	case "counters":
		answer = c.status(false)
	default:
		answer = map[string]string{"error": fmt.Sprintf("unknown request %.32q: want status or counters", req)}
	}
	enc := json.NewEncoder(conn)
	enc.SetIndent("", "  ")
	_ = enc.Encode(answer)
}

// Close stops serving, removes the socket and waits for those being answered.
func (c *Control) Close() error {
	err := c.ln.Close()
	c.mu.Lock()
	for conn := range c.conns {
		_ = conn.Close()
	}
	c.mu.Unlock()
	c.wg.Wait()
	return err
}

// ReadStatus asks a broker's control socket for its status.
func ReadStatus(path string) (Status, error) {
	var s Status
	conn, err := net.DialTimeout("unix", path, controlTimeout)
	if err != nil {
		return s, &OpError{Op: "connect to control socket", Object: path, Err: err}
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(controlTimeout))
	if _, err := fmt.Fprintln(conn, "status"); err != nil {
		return s, &OpError{Op: "ask control socket", Object: path, Err: err}
	}
	if err := json.NewDecoder(conn).Decode(&s); err != nil {
		return s, &OpError{Op: "read control socket", Object: path, Err: err}
	}
	return s, nil
}
