// Package lab runs real machines and compositors for tests: QEMU guests, weston,
// sway and Xvfb, all out of one Debian tree (the lab root) that `make lab` builds
// outside the checkout.
//
// The same tree is used twice. On this machine its programs run through
// bubblewrap ([Root.Command]); in a guest it is the root file system, shared
// over 9p and read-only, with an overlay in memory ([VM]).
//
//	root, err := lab.Find()
//	vm, err := root.StartVM(ctx, lab.VMConfig{Devices: []string{"-device", "virtio-gpu-pci"}})
//	defer vm.Close()
//	out, err := vm.Run(ctx, "modprobe virtio_gpu && ls /dev/dri")
package lab
