package virtiogpu

// SizeConfig is the size of the device's configuration space, in bytes.
const SizeConfig = 16

// Config is struct virtio_gpu_config (virtio spec 5.7.4).
type Config struct {
	EventsRead  uint32 // EventDisplay; set by the device
	EventsClear uint32 // written by the guest: events_read bits to clear
	NumScanouts uint32 // 1 to MaxScanouts
	NumCapsets  uint32
}

func (c *Config) wire(x *codec) {
	x.u32(&c.EventsRead)
	x.u32(&c.EventsClear)
	x.u32(&c.NumScanouts)
	x.u32(&c.NumCapsets)
}

// Decode reads the configuration space at the start of p.
func (c *Config) Decode(p []byte) error {
	x, err := reader(p, SizeConfig, 0)
	if err != nil {
		return err
	}
	c.wire(&x)
	return nil
}

// Append appends the configuration space to dst.
func (c *Config) Append(dst []byte) []byte {
	x := codec{p: dst, writing: true}
	c.wire(&x)
	return x.p
}
