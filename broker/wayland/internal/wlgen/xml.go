package main

import (
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

type protocol struct {
	Name       string  `xml:"name,attr"`
	Interfaces []iface `xml:"interface"`
	file       string  // base name of the XML
}

type iface struct {
	Name        string      `xml:"name,attr"`
	Version     uint32      `xml:"version,attr"`
	Description description `xml:"description"`
	Requests    []message   `xml:"request"`
	Events      []message   `xml:"event"`
	Enums       []enum      `xml:"enum"`
}

type message struct {
	Name        string      `xml:"name,attr"`
	Type        string      `xml:"type,attr"`
	Since       uint32      `xml:"since,attr"`
	Deprecated  uint32      `xml:"deprecated-since,attr"`
	Description description `xml:"description"`
	Args        []arg       `xml:"arg"`
}

type arg struct {
	Name      string `xml:"name,attr"`
	Type      string `xml:"type,attr"`
	Interface string `xml:"interface,attr"`
	AllowNull bool   `xml:"allow-null,attr"`
	Enum      string `xml:"enum,attr"`
}

type enum struct {
	Name        string      `xml:"name,attr"`
	Description description `xml:"description"`
	Entries     []entry     `xml:"entry"`
}

type entry struct {
	Name    string `xml:"name,attr"`
	Value   string `xml:"value,attr"`
	Summary string `xml:"summary,attr"`
}

type description struct {
	Summary string `xml:"summary,attr"`
}

// text returns the summary as one line without a full stop.
func (d description) text() string { return oneLine(d.Summary) }

func oneLine(s string) string {
	return strings.TrimSuffix(strings.Join(strings.Fields(s), " "), ".")
}

func parse(path string) (*protocol, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := &protocol{file: filepath.Base(path)}
	if err := xml.Unmarshal(data, p); err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	for i := range p.Interfaces {
		if err := p.Interfaces[i].check(); err != nil {
			return nil, fmt.Errorf("parse %s: %w", path, err)
		}
	}
	return p, nil
}

func (i *iface) check() error {
	if i.Name == "" || i.Version == 0 {
		return fmt.Errorf("interface %q has version %d", i.Name, i.Version)
	}
	for _, list := range [][]message{i.Requests, i.Events} {
		for k := range list {
			m := &list[k]
			m.Since = max(m.Since, 1)
			for _, a := range m.Args {
				if _, ok := argTypes[a.Type]; !ok {
					return fmt.Errorf("%s.%s: argument %s has type %q", i.Name, m.Name, a.Name, a.Type)
				}
			}
		}
	}
	for _, e := range i.Enums {
		for _, v := range e.Entries {
			if _, err := strconv.ParseUint(v.Value, 0, 32); err != nil {
				return fmt.Errorf("%s.%s.%s: %w", i.Name, e.Name, v.Name, err)
			}
		}
	}
	return nil
}

func (m *message) fds() int {
	n := 0
	for _, a := range m.Args {
		if a.Type == "fd" {
			n++
		}
	}
	return n
}
