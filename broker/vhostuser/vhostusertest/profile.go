package vhostusertest

import "github.com/gpubroker/gpubroker/broker/vhostuser"

// Profile is how one version of QEMU, with one of its devices, speaks.
type Profile struct {
	Name string
	// Proto is the protocol features that this version knows; it acknowledges
	// those that the back-end offers too.
	Proto vhostuser.ProtocolFeature
	// DisplaySocket: the device sends GPU_SET_SOCKET at each start (mode A).
	DisplaySocket bool
	// EnableWaits: SET_VRING_ENABLE asks for an ack.
	EnableWaits bool
	// VringFDWaits: SET_VRING_KICK, CALL and ERR ask for an ack (since 10.2).
	VringFDWaits bool
	// ResetDevice: a virtio reset sends RESET_DEVICE, and so does the machine's own
	// reset when QEMU starts and when the guest reboots.
	ResetDevice bool
	// CallInRing: the masked call eventfd is sent among the messages of each ring
	// (mode B). Otherwise it comes for all rings before a start and after a stop.
	CallInRing bool
	// KickAtStart: the front-end writes to the kick eventfd itself after a start.
	KickAtStart bool
	// ConfigChangeRefused: CONFIG_CHANGE_MSG is logged as unhandled (mode A).
	ConfigChangeRefused bool
	// QueueSizes are the default sizes of the control and the cursor queue.
	QueueSizes [2]int
	// ForcedBits are driver bits that QEMU acknowledges without asking the
	// back-end whether it offered them.
	ForcedBits uint64
}

const qemu7Proto = vhostuser.ProtoMQ | vhostuser.ProtoLogShmfd | vhostuser.ProtoReplyAck | vhostuser.ProtoBackendReq |
	vhostuser.ProtoConfig | vhostuser.ProtoBackendSendFD | vhostuser.ProtoInflightShmfd | vhostuser.ProtoResetDevice |
	vhostuser.ProtoConfigureMemSlots

const qemu10Proto = qemu7Proto | vhostuser.ProtoStatus | vhostuser.ProtoSharedObject

// QEMU 11 masks only by the number of its last feature, so it acknowledges bits
// that it should not.
const qemu11Proto = qemu10Proto | vhostuser.ProtoGPAAddresses | vhostuser.ProtoShmem

const modeABits = vhostuser.FIndirectDesc | vhostuser.FEventIdx | vhostuser.FAnyLayout | vhostuser.FVersion1

// The versions that are looked at: mode A is vhost-user-gpu-pci or
// vhost-user-vga, mode B is vhost-user-test-device-pci.
var (
	QEMU72A = Profile{Name: "7.2 mode A", Proto: qemu7Proto, DisplaySocket: true, QueueSizes: [2]int{256, 16}, ForcedBits: modeABits, ConfigChangeRefused: true}
	QEMU10A = Profile{Name: "10.0 mode A", Proto: qemu10Proto, DisplaySocket: true, EnableWaits: true, ResetDevice: true, QueueSizes: [2]int{1024, 1024}, ForcedBits: modeABits | vhostuser.FRingReset, ConfigChangeRefused: true}
	QEMU11A = Profile{Name: "11.1 mode A", Proto: qemu11Proto, DisplaySocket: true, EnableWaits: true, VringFDWaits: true, ResetDevice: true, KickAtStart: true, QueueSizes: [2]int{256, 16}, ForcedBits: modeABits, ConfigChangeRefused: true}
	QEMU11B = Profile{Name: "11.1 mode B", Proto: qemu11Proto, EnableWaits: true, VringFDWaits: true, CallInRing: true, KickAtStart: true, QueueSizes: [2]int{256, 256}}
	// Bare has no protocol features at all: rings start without being enabled,
	// memory comes as a table, nothing is acknowledged.
	Bare = Profile{Name: "bare", DisplaySocket: true, QueueSizes: [2]int{64, 16}, ForcedBits: modeABits}
)

// Profiles lists them all.
var Profiles = []Profile{QEMU72A, QEMU10A, QEMU11A, QEMU11B, Bare}
