package dmabuf

import "fmt"

// DRMDriver is what a DRM node says of its driver.
type DRMDriver struct {
	Name                string // "i915", "amdgpu", "vgem"
	Desc                string
	Major, Minor, Patch int32
}

func (d DRMDriver) String() string {
	return fmt.Sprintf("%s %d.%d.%d", d.Name, d.Major, d.Minor, d.Patch)
}

// Driver asks an open DRM node for its driver (DRM_IOCTL_VERSION).
func Driver(fd *FD) (DRMDriver, error) {
	d, err := drmVersion(fd)
	if err != nil {
		return DRMDriver{}, &OpError{Op: "ask for the driver of", Object: fd.Name(), Err: err}
	}
	return d, nil
}

// Capabilities of DRM nodes (drm/drm.h, DRM_CAP_*).
const (
	CapPrime           = 0x5 // bits PrimeImport and PrimeExport
	CapSyncobjTimeline = capSyncobjTimeline

	PrimeImport = 1
	PrimeExport = 2
)

// Cap asks an open DRM node for a capability; drivers without it say 0.
func Cap(fd *FD, capability uint64) (uint64, error) {
	arg := getCapArg{capability: capability}
	if _, err := ioctl(fd, ioctlGetCap, &arg); err != nil {
		return 0, &OpError{Op: "ask for a capability of", Object: fmt.Sprintf("%s: %#x", fd.Name(), capability), Err: err}
	}
	return arg.value, nil
}
