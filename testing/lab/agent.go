package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// ErrRebooted says that the guest started anew while a script ran in it.
var ErrRebooted = errors.New("the guest rebooted")

// agent is the host's end of guest/agent.sh.
type agent struct {
	conn net.Conn
	log  io.Writer // may be nil
	done chan struct{}

	mu    sync.Mutex
	boots int           // guarded by mu: hellos heard
	boot  chan struct{} // guarded by mu: closed and replaced at every hello
	run   *agentRun     // guarded by mu: the script that runs now
	runs  int           // guarded by mu: for nonces
}

type agentRun struct {
	nonce  string
	out    strings.Builder
	result chan error // gets one value; nil when code is set
	code   int
}

// newAgent takes ownership of conn.
func newAgent(conn net.Conn, log io.Writer) *agent {
	a := &agent{conn: conn, log: log, boot: make(chan struct{}), done: make(chan struct{})}
	go a.read()
	return a
}

func (a *agent) read() {
	defer close(a.done)
	lines := bufio.NewReader(a.conn)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			a.line(line)
		}
		if err != nil {
			a.finish(fmt.Errorf("the guest's agent went away: %w", err))
			return
		}
	}
}

func (a *agent) line(line string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	verb, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	if verb == "lab-agent-hello" {
		a.boots++
		close(a.boot)
		a.boot = make(chan struct{})
		a.finishLocked(ErrRebooted)
		return
	}
	if a.run != nil && verb == a.run.nonce {
		code, err := strconv.Atoi(rest)
		a.run.code = code
		a.finishLocked(err)
		return
	}
	if a.run != nil {
		a.run.out.WriteString(line)
	}
	if a.log != nil {
		_, _ = io.WriteString(a.log, line)
	}
}

func (a *agent) finish(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.finishLocked(err)
}

func (a *agent) finishLocked(err error) {
	if a.run != nil {
		a.run.result <- err
		a.run = nil
	}
}

// start sends a script of the share to the guest. Only one runs at a time.
func (a *agent) start(file string) (*agentRun, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.run != nil {
		return nil, errors.New("another script is running in the guest")
	}
	a.runs++
	run := &agentRun{nonce: fmt.Sprintf("lab-agent-exit-%d", a.runs), result: make(chan error, 1)}
	if _, err := fmt.Fprintf(a.conn, "run %s %s\n", file, run.nonce); err != nil {
		return nil, err
	}
	a.run = run
	return run, nil
}

// wait returns what the script wrote and its exit code.
func (a *agent) wait(ctx context.Context, run *agentRun) (string, int, error) {
	var err error
	select {
	case err = <-run.result:
	case <-ctx.Done():
		err = context.Cause(ctx)
		a.finish(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	// The agent writes a newline before the exit line.
	return strings.TrimSuffix(run.out.String(), "\n"), run.code, err
}

// booted returns how often the guest has come up, and a channel that is closed
// at the next time.
func (a *agent) booted() (int, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.boots, a.boot
}

func (a *agent) close() {
	a.conn.Close()
	<-a.done
}
