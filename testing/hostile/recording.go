package hostile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/gpubroker/gpubroker/broker/record"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
)

// mostRecorded bounds the bytes that are taken of a recording.
const mostRecorded = 64 << 20

// FromRecording reads the commands of a recording of gpubroker serve --record, up to its
// first reset: traffic for mutations. What memory held is left out.
func FromRecording(path string) ([]Record, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	r, err := record.NewReader(f, path)
	if err != nil {
		return nil, err
	}
	var a arena
	var rec record.Record
	for size := 0; size < mostRecorded; {
		if err := r.Next(&rec); errors.Is(err, io.EOF) || errors.Is(err, record.ErrTruncated) {
			break
		} else if err != nil {
			return nil, err
		}
		if rec.Kind == record.KindReset && len(a.list) > 0 {
			break
		}
		if rec.Kind == record.KindCommand {
			size += len(rec.Data)
			a.list = append(a.list, Record{Cursor: rec.Queue == 1, Cmd: a.settle(rec.Data)})
		}
	}
	if len(a.list) == 0 {
		return nil, fmt.Errorf("%s: no commands", path)
	}
	return a.list, nil
}

// settle copies a command and moves the pieces of guest memory in it into the arena.
func (a *arena) settle(cmd []byte) []byte {
	cmd = bytes.Clone(cmd)
	at := entriesAt(cmd)
	for ; at > 0 && at+virtiogpu.SizeMemEntry <= len(cmd); at += virtiogpu.SizeMemEntry {
		n := (uint64(binary.LittleEndian.Uint32(cmd[at+8:])) + 4095) &^ 4095
		if n > arenaSize/2 {
			continue // too large for the guests here
		}
		if a.next+n > arenaSize {
			a.next = 0 // old pages are used again
		}
		binary.LittleEndian.PutUint64(cmd[at:], a.next)
		a.next += n
	}
	return cmd
}
