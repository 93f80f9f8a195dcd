package main

import (
	"go/token"
	"strings"
)

// argTypes maps the XML's type to the constant of package proto.
var argTypes = map[string]string{
	"int": "Int", "uint": "Uint", "fixed": "Fixed", "string": "String",
	"object": "Object", "new_id": "NewID", "array": "Array", "fd": "FD",
}

// camel turns xdg_wm_base into XdgWmBase.
func camel(s string) string {
	var b strings.Builder
	for _, part := range strings.Split(s, "_") {
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return b.String()
}

// param turns an argument's name into that of a Go parameter.
func param(s string) string {
	c := camel(s)
	c = strings.ToLower(c[:1]) + c[1:]
	if token.IsKeyword(c) || c == "wr" || c == "o" || c == "wire" {
		return c + "Arg"
	}
	return c
}

// outName turns staging/xdg-shell.xml into xdg_shell_gen.go.
func outName(file string) string {
	return strings.ReplaceAll(strings.TrimSuffix(file, ".xml"), "-", "_") + "_gen.go"
}
