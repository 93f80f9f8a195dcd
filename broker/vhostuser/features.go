package vhostuser

// Virtio feature bits that belong to the transport (virtio 1.2, 6) or to
// vhost-user itself.
const (
	FNotifyOnEmpty    = 1 << 24
	FLogAll           = 1 << 26 // VHOST_F_LOG_ALL
	FAnyLayout        = 1 << 27
	FIndirectDesc     = 1 << 28
	FEventIdx         = 1 << 29
	FProtocolFeatures = 1 << 30 // VHOST_USER_F_PROTOCOL_FEATURES
	FVersion1         = 1 << 32
	FAccessPlatform   = 1 << 33
	FRingPacked       = 1 << 34
	FInOrder          = 1 << 35
	FRingReset        = 1 << 40
)

// transportFeatures are offered for every device.
const transportFeatures = FIndirectDesc | FEventIdx | FProtocolFeatures | FVersion1

// refusedFeatures change how rings or addresses work and are not implemented.
// QEMU's gpu device passes its own transport bits to the driver without asking
// the back-end, so a user can turn these on; then nothing would work, and the
// connection ends with a message that says why.
const refusedFeatures = FAccessPlatform | FRingPacked | FInOrder

// ProtocolFeature is a bit mask of VHOST_USER_PROTOCOL_F_*.
type ProtocolFeature uint64

// The protocol features known here.
const (
	ProtoMQ                ProtocolFeature = 1 << 0
	ProtoLogShmfd          ProtocolFeature = 1 << 1
	ProtoReplyAck          ProtocolFeature = 1 << 3
	ProtoBackendReq        ProtocolFeature = 1 << 5
	ProtoConfig            ProtocolFeature = 1 << 9
	ProtoBackendSendFD     ProtocolFeature = 1 << 10
	ProtoInflightShmfd     ProtocolFeature = 1 << 12
	ProtoResetDevice       ProtocolFeature = 1 << 13
	ProtoConfigureMemSlots ProtocolFeature = 1 << 15
	ProtoStatus            ProtocolFeature = 1 << 16
	ProtoSharedObject      ProtocolFeature = 1 << 18
	// ProtoGPAAddresses must never be offered: QEMU 11 acknowledges it and then
	// sends ring addresses of another kind.
	ProtoGPAAddresses ProtocolFeature = 1 << 21
	// ProtoShmem has this number since QEMU 11.1; drafts used 20 and 21.
	ProtoShmem ProtocolFeature = 1 << 22
)

// offeredProto is what every back-end offers. CONFIG is a condition of QEMU's
// gpu device; without CONFIGURE_MEM_SLOTS the table of eight regions overflows
// after a few blobs. MQ is left out because a gpu has a fixed number of queues,
// STATUS because QEMU's gpu device implements half of it.
const offeredProto = ProtoReplyAck | ProtoBackendReq | ProtoConfig | ProtoBackendSendFD |
	ProtoResetDevice | ProtoConfigureMemSlots
