// Command gldraw draws with OpenGL ES without a window and says whether the pixels are
// right.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/gpubroker/gpubroker/testing/virpipe/gldraw"
)

func main() {
	frames := flag.Int("frames", 20, "how many `FRAMES`")
	seed := flag.Uint("seed", 1, "`N` that tells programs apart, to 255")
	flag.Parse()
	r, err := gldraw.Draw(*frames, byte(*seed))
	fmt.Println("GL_RENDERER:", r.Renderer)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gldraw:", err)
		os.Exit(1)
	}
	fmt.Println(*frames, "frames are right")
	fmt.Printf("the first after %.1f ms, then %.1f a second\n", r.First.Seconds()*1000, float64(*frames-1)/r.Rest.Seconds())
}
