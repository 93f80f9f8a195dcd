// Package proto is the Wayland protocol in Go, generated from the XML files in
// ../protocols: an object type with encoders for each interface, a struct with a
// decoder for each message, typed constants for each enum, and tables that
// describe every message for whoever forwards or skips what it does not read.
//
// Requests are written by methods with the request's name
// (WlSurface.Attach), events by the same with Send before it
// (WlBuffer.SendRelease).
package proto

import "sort"

//go:generate sh -c "go run ../internal/wlgen -out . ../protocols/*.xml"

// InterfaceID is an index into [Interfaces]; 0 is no or any interface.
type InterfaceID uint16

// ArgType is the type of an argument on the wire.
type ArgType uint8

// The types of argument.
const (
	Int ArgType = iota + 1
	Uint
	Fixed
	String
	Object
	NewID // without an Interface it is preceded by name (string) and version (uint)
	Array
	FD // no bytes in the message; the next descriptor of the connection
)

// Interface describes a Wayland interface.
type Interface struct {
	Name     string
	Version  uint32 // the highest version that the tables know
	Requests []Message
	Events   []Message
}

// Message describes a request or an event; its index is the opcode.
type Message struct {
	Name       string
	Since      uint32 // first version that has it, at least 1
	Deprecated uint32 // first version that should not use it, 0 if none
	Destructor bool   // the object is gone afterwards
	FDs        int    // descriptors that it carries
	Args       []Arg
}

// Arg describes an argument.
type Arg struct {
	Name      string
	Type      ArgType
	Nullable  bool
	Interface InterfaceID // of Object and NewID; 0 if any or unknown
}

// Lookup finds an interface by name; 0 if the tables do not have it.
func Lookup(name string) InterfaceID {
	list := Interfaces[1:]
	i := sort.Search(len(list), func(i int) bool { return list[i].Name >= name })
	if i == len(list) || list[i].Name != name {
		return 0
	}
	return InterfaceID(i + 1)
}

// Event returns the description of an event, nil if there is none.
func (id InterfaceID) Event(opcode uint16) *Message {
	if int(id) >= len(Interfaces) || int(opcode) >= len(Interfaces[id].Events) {
		return nil
	}
	return &Interfaces[id].Events[opcode]
}

// Request returns the description of a request, nil if there is none.
func (id InterfaceID) Request(opcode uint16) *Message {
	if int(id) >= len(Interfaces) || int(opcode) >= len(Interfaces[id].Requests) {
		return nil
	}
	return &Interfaces[id].Requests[opcode]
}

// String returns the interface's name.
func (id InterfaceID) String() string {
	if id == 0 || int(id) >= len(Interfaces) {
		return "unknown interface"
	}
	return Interfaces[id].Name
}
