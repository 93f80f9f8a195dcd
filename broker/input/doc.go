// Package input is the guest's keyboard, pointer and touch screen: virtio-input
// devices (virtio spec 1.3, 5.8) behind vhost-user sockets, for QEMU's
// vhost-user-input-pci. What a display's windows report through
// [display.Input] comes out of the guest's /dev/input/event*.
//
// There are two kinds of device, each with a socket of its own:
//
//   - [Main] is a keyboard, an absolute pointer and a wheel in one. udev tags it
//     as keyboard and mouse, and libinput gives it both capabilities.
//   - [Touch] is a multi-touch screen. It stands alone because libinput takes
//     the absolute axes of a device with multi-touch axes for those of its
//     fingers, so a pointer in the same device would be dead.
//
// With several heads the pointer's axes cover all of them, side by side in the
// order of their numbers and aligned at the top, as a guest places its outputs
// by itself; see [Server.SetHeads].
//
// Events wait in a bounded queue, because QEMU's device has an event queue of
// only four buffers. When the guest is slow, movements and wheel turns are added
// up; key presses that have no room are dropped; the release of a key that the
// guest has seen, or will see, pressed is never lost.
package input
