// Command evread is the guest's side of the input tests. It finds an input device by
// its name, as /sys/class/input says it.
//
//	evread read NAME FILE      append each event to FILE as "TYPE CODE VALUE"
//	evread led NAME CODE 0|1   set a light of the keyboard
//	evread absent NAME         succeed if there is no such device
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// eventSize is sizeof(struct input_event) with 64-bit time (linux/input.h): two
// words of time, type, code, value.
const eventSize = 24

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "evread:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "read":
		return read(args[1], args[2])
	case len(args) == 4 && args[0] == "led":
		return led(args[1], args[2], args[3])
	case len(args) == 2 && args[0] == "absent":
		if dev := find(args[1]); dev != "" {
			return fmt.Errorf("%s is %s", dev, args[1])
		}
		return nil
	}
	return fmt.Errorf("usage: evread read NAME FILE | led NAME CODE VALUE | absent NAME")
}

// find returns the device's node, empty if there is none.
func find(name string) string {
	files, _ := filepath.Glob("/sys/class/input/event*/device/name") // only a bad pattern fails
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(body)) == name {
			return "/dev/input/" + strings.Split(file, "/")[4]
		}
	}
	return ""
}

// open waits for the device: a driver that was just loaded needs a moment.
func open(name string, flag int) (*os.File, error) {
	for range 200 {
		if dev := find(name); dev != "" {
			if f, err := os.OpenFile(dev, flag, 0); err == nil {
				return f, nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, fmt.Errorf("no input device %q", name)
}

func read(name, file string) error {
	dev, err := open(name, os.O_RDONLY)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, "ready"); err != nil {
		return err
	}
	// The kernel keeps only 64 events for a reader, so reading does not wait for
	// the file.
	events := make(chan []byte, 4096)
	failed := make(chan error, 1)
	go func() {
		defer close(events)
		for {
			buf := make([]byte, 64*eventSize)
			n, err := dev.Read(buf) // whole events only
			if err != nil {
				failed <- err
				return
			}
			events <- buf[:n]
		}
	}()
	for e := range events {
		var text []byte
		for ; len(e) >= eventSize; e = e[eventSize:] {
			text = fmt.Appendf(text, "%d %d %d\n", binary.LittleEndian.Uint16(e[16:]),
				binary.LittleEndian.Uint16(e[18:]), int32(binary.LittleEndian.Uint32(e[20:])))
		}
		if _, err := out.Write(text); err != nil {
			return err
		}
	}
	return <-failed // ENODEV when the driver goes
}

const evLED = 0x11

func led(name, code, value string) error {
	c, err := strconv.ParseUint(code, 10, 16)
	if err != nil {
		return err
	}
	v, err := strconv.ParseUint(value, 10, 1)
	if err != nil {
		return err
	}
	dev, err := open(name, os.O_RDWR)
	if err != nil {
		return err
	}
	defer dev.Close()
	var e [2 * eventSize]byte // the second one is SYN_REPORT: all zero
	binary.LittleEndian.PutUint16(e[16:], evLED)
	binary.LittleEndian.PutUint16(e[18:], uint16(c))
	binary.LittleEndian.PutUint32(e[20:], uint32(v))
	_, err = dev.Write(e[:])
	return err
}
