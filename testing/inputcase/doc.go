// Package inputcase shows that what a display reports as input comes out of a real
// guest's /dev/input: the guest's side of it, a small program, and the case that
// types through a compositor. Its tests start guests.
package inputcase
