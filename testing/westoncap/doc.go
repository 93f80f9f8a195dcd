// Package westoncap takes weston's own pictures of its output, through its
// weston_capture_v1 protocol, as weston-screenshooter does, but without starting
// a program and packing a PNG for each: inside an emulated machine that takes
// more than a second, and a test that looks at a hundred pictures cannot wait.
package westoncap
