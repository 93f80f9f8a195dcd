package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
)

// qmp speaks QEMU's machine protocol (docs/interop/qmp-spec.rst): one JSON
// object a line, one command at a time.
type qmp struct {
	conn    net.Conn
	replies chan qmpReply // closed when the connection ends

	mu sync.Mutex // held during a command
}

type qmpReply struct {
	Return json.RawMessage `json:"return"`
	Error  *QMPError       `json:"error"`
	Event  string          `json:"event"`
}

// QMPError is QEMU's refusal of a command.
type QMPError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *QMPError) Error() string { return fmt.Sprintf("QEMU refused: %s (%s)", e.Desc, e.Class) }

// newQMP takes ownership of conn and negotiates.
func newQMP(ctx context.Context, conn net.Conn) (*qmp, error) {
	q := &qmp{conn: conn, replies: make(chan qmpReply, 1)}
	go q.read()
	if _, err := q.run(ctx, "qmp_capabilities", nil); err != nil {
		q.close()
		return nil, err
	}
	return q, nil
}

func (q *qmp) read() {
	defer close(q.replies)
	dec := json.NewDecoder(q.conn)
	for {
		var reply qmpReply
		if err := dec.Decode(&reply); err != nil {
			return
		}
		// The greeting and events are neither answer nor refusal.
		if reply.Return == nil && reply.Error == nil {
			continue
		}
		q.replies <- reply
	}
}

func (q *qmp) run(ctx context.Context, command string, args any) (json.RawMessage, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	request := struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, args}
	if err := json.NewEncoder(q.conn).Encode(request); err != nil {
		return nil, fmt.Errorf("qmp %s: %w", command, err)
	}
	select {
	case reply, ok := <-q.replies:
		if !ok {
			return nil, fmt.Errorf("qmp %s: %w", command, net.ErrClosed)
		}
		if reply.Error != nil {
			return nil, fmt.Errorf("qmp %s: %w", command, reply.Error)
		}
		return reply.Return, nil
	case <-ctx.Done():
		// The late answer would be taken for the next command's.
		q.conn.Close()
		return nil, fmt.Errorf("qmp %s: %w", command, context.Cause(ctx))
	}
}

func (q *qmp) close() {
	q.conn.Close()
	for range q.replies { // until the reader has ended
	}
}
