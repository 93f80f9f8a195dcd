package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// maxControlWait is how long a client waits for an answer. A shot visits the render
// thread, which may be busy drawing for that long.
const maxControlWait = 30 * time.Second

// ErrRefused says that the broker cannot do what a control request asks; its reason
// follows.
var ErrRefused = errors.New("the broker refuses")

// Ask sends a request to a broker's control socket and decodes the answer into a
// pointer. An answer {"error": …} becomes an error that wraps [ErrRefused].
func Ask(path, request string, answer any) error {
	conn, err := net.DialTimeout("unix", path, controlTimeout)
	if err != nil {
		return &OpError{Op: "connect to control socket", Object: path, Err: err}
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(maxControlWait))
	if _, err := fmt.Fprintln(conn, request); err != nil {
		return &OpError{Op: "ask control socket", Object: path, Err: err}
	}
	var body json.RawMessage
	if err := json.NewDecoder(conn).Decode(&body); err != nil {
		return &OpError{Op: "read control socket", Object: path, Err: err}
	}
	var no refusal
	if err := json.Unmarshal(body, &no); err == nil && no.Error != "" {
		return &OpError{Op: "ask control socket", Object: path, Err: fmt.Errorf("%w: %s", ErrRefused, no.Error)}
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return &OpError{Op: "read control socket", Object: path, Err: err}
	}
	return nil
}

// ReadStatus asks a broker's control socket for its status.
func ReadStatus(path string) (Status, error) {
	var s Status
	return s, Ask(path, "status", &s)
}
