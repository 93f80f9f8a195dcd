// Command guestpaint runs in a guest and draws known pictures on its screen,
// without any library.
//
//	guestpaint fb             paints the pattern to /dev/fb0
//	guestpaint kms < COMMANDS shows the pattern with a mode of its own, then does
//	                          what the lines say: "cursor X Y HOTX HOTY",
//	                          "move X Y", "hide", "flip", and answers "ok" to each
package main

import (
	"fmt"
	"os"
)

func main() {
	err := fmt.Errorf("want one argument, fb or kms")
	if len(os.Args) == 2 {
		switch os.Args[1] {
		case "fb":
			err = paintFB()
		case "kms":
			err = kms(os.Stdin, os.Stdout)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "guestpaint:", err)
		os.Exit(1)
	}
}
