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

// Request is a request that a control socket answers: a line that begins with Name.
// Usage is its form, for the answer to a request that makes no sense. Answer gets the
// words behind the name and returns what goes out as JSON; its error goes out as
// {"error": …}. It runs on the connection's goroutine, several at a time.
type Request struct {
	Name, Usage string
	Answer      func(args []string) (any, error)
}

// Control answers requests on a unix stream socket (docs/control.md): one line is
// answered with one JSON object and the end of the stream. An unknown request gets
// {"error": …}.
type Control struct {
	ln       *net.UnixListener
	requests []Request
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{} // guarded by mu
}

// ListenControl serves the socket at path, replacing one that nobody serves. It answers
// "status" and "counters" by status, and more.
func ListenControl(path string, status func(table bool) Status, more ...Request) (*Control, error) {
	ln, err := unixsock.Listen(path)
	if err != nil {
		return nil, &OpError{Op: "listen on control socket", Object: path, Err: err}
	}
	c := &Control{ln: ln, conns: map[net.Conn]struct{}{}, requests: append([]Request{
		{"status", "status", func([]string) (any, error) { return status(true), nil }},
		{"counters", "counters", func([]string) (any, error) { return status(false), nil }},
	}, more...)}
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
	answer := c.answer(strings.TrimSpace(string(line)))
	_ = conn.SetDeadline(time.Now().Add(controlTimeout))
	enc := json.NewEncoder(conn)
	enc.SetIndent("", "  ")
	_ = enc.Encode(answer)
}

// refusal is the answer to what cannot be done.
type refusal struct {
	Error string `json:"error"`
}

func (c *Control) answer(line string) any {
	if words := strings.Fields(line); len(words) > 0 {
		for _, r := range c.requests {
			if r.Name != words[0] {
				continue
			}
			answer, err := r.Answer(words[1:])
			if err != nil {
				return refusal{err.Error()}
			}
			return answer
		}
	}
	var usages []string
	for _, r := range c.requests {
		usages = append(usages, r.Usage)
	}
	return refusal{fmt.Sprintf("unknown request %.32q: want one of: %s", line, strings.Join(usages, "; "))}
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
