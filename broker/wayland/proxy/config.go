package proxy

import (
	"time"

	"go.uber.org/zap"
)

// Config says where clients go and what they may do.
type Config struct {
	// Display is the path of the compositor's socket.
	Display string
	// Policy is what guests may see; nil means [DefaultPolicy].
	Policy *Policy
	// Resources is the broker's table; nil means that no resource can be named.
	Resources Resources
	// Limits bound each client; zero fields have the values of [DefaultLimits].
	Limits Limits
	// VMName and VMID identify the VM to the compositor (wp_security_context_v1
	// app id and instance id). VMName is also in logs.
	VMName, VMID string
	// Folder is where the socket of a security context is made; empty: $XDG_RUNTIME_DIR.
	Folder string
	Log    *zap.Logger // nil: no logs
}

// Limits bound what one client can make grow.
type Limits struct {
	Clients  int `toml:"clients" json:"clients"`   // at a time, of the whole VM
	Objects  int `toml:"objects" json:"objects"`   // protocol objects
	Surfaces int `toml:"surfaces" json:"surfaces"` // wl_surface objects
	Buffers  int `toml:"buffers" json:"buffers"`   // wl_buffers with memory
	Pools    int `toml:"pools" json:"pools"`       // wl_shm_pool objects
	Items    int `toml:"items" json:"items"`       // items (descriptors) received and not claimed by a message
	// HostBytes bounds host memory that a client makes us allocate: buffers whose
	// content comes as bytes, and pictures that have to be converted.
	HostBytes int64 `toml:"host_bytes" json:"host_bytes"`
	// Backlog is how many bytes may wait for the guest or for the compositor before
	// the other side is not read any more.
	Backlog int `toml:"backlog" json:"backlog"`
	// ParkTime is how long a resource id may name what does not exist yet.
	ParkTime Duration `toml:"park_time" json:"park_time"`
}

// Duration is a time.Duration that policies write as text, such as "2s".
type Duration time.Duration

// UnmarshalText reads what time.ParseDuration takes.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// DefaultLimits are large enough for every client that we know of.
func DefaultLimits() Limits {
	return Limits{
		Clients: 128, Objects: 16384, Surfaces: 1024, Buffers: 2048, Pools: 512, Items: 256,
		HostBytes: 1 << 30, Backlog: 1 << 18, ParkTime: Duration(3 * time.Second),
	}
}

// or fills zero fields of l from o.
func (l Limits) or(o Limits) Limits {
	pick := func(v *int, w int) {
		if *v == 0 {
			*v = w
		}
	}
	pick(&l.Clients, o.Clients)
	pick(&l.Objects, o.Objects)
	pick(&l.Surfaces, o.Surfaces)
	pick(&l.Buffers, o.Buffers)
	pick(&l.Pools, o.Pools)
	pick(&l.Items, o.Items)
	pick(&l.Backlog, o.Backlog)
	if l.HostBytes == 0 {
		l.HostBytes = o.HostBytes
	}
	if l.ParkTime == 0 {
		l.ParkTime = o.ParkTime
	}
	return l
}
