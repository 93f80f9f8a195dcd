// Command wlgen turns Wayland protocol XML into Go: tables of every interface's
// messages, types and constants, encoders and decoders for both directions.
//
//	wlgen -out DIR FILE.xml…
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	out := flag.String("out", ".", "folder for the generated files")
	flag.Parse()
	if err := run(*out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "wlgen:", err)
		os.Exit(1)
	}
}

func run(out string, inputs []string) error {
	files, err := generate(inputs)
	if err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(out, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
