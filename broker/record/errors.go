package record

import (
	"errors"
	"fmt"
)

var (
	// ErrFormat says that a file breaks a rule of the format.
	ErrFormat = errors.New("no good recording")
	// ErrTruncated says that a file ends inside a record: who wrote it was killed, or
	// the copy is not complete. What came before is good.
	ErrTruncated = errors.New("the file ends inside a record")
	// ErrLimit is why a Writer stopped at its limit.
	ErrLimit = errors.New("the recording has reached its limit")
	// ErrNotEmpty says that a file holds something already.
	ErrNotEmpty = errors.New("the file is not empty; it is not overwritten")
	// ErrNotRegular says that a path is no ordinary file: one write after the other has
	// to end without anybody who reads.
	ErrNotRegular = errors.New("not a regular file")
)

// OpError is the error type of this package: something about a file failed.
type OpError struct {
	Op     string // "create", "write", "read"
	Path   string // "" for a stream
	Offset int64  // bytes from the start of what is read, unpacked; -1: of no place
	Err    error
}

func (e *OpError) Error() string {
	s := "record: " + e.Op
	if e.Path != "" {
		s += " " + e.Path
	}
	if e.Offset >= 0 {
		s += fmt.Sprintf(" at offset %d", e.Offset)
	}
	return s + ": " + e.Err.Error()
}

func (e *OpError) Unwrap() error { return e.Err }
