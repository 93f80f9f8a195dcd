// Package record is the file of a recording: what a guest put into the queues of its
// GPU, the guest memory that those commands read, and what they were answered with
// (docs/record.md). It knows nothing of devices.
//
// A file is a header and records, each with its length in front. A record is written
// whole before the command in it is run, so that the file of a process which died of a
// command ends with that command.
package record
