package broker

import (
	"encoding/json"
	"slices"
	"strconv"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// What is kept for the process that comes after this one if it dies (package keep): the
// resources whose pixels are not the renderer's. Contexts and textures die with the
// renderer; their ids are unknown afterwards, and commands that name them get the
// error that says so.

// keptResource is what is kept of a resource: the commands that made it.
type keptResource struct {
	Create []byte `json:"create"`           // with its memory entries
	Attach []byte `json:"attach,omitempty"` // RESOURCE_ATTACH_BACKING, if it has any
	UUID   []byte `json:"uuid,omitempty"`

	Mapped   bool   `json:"mapped,omitempty"` // in the window, at Offset
	Offset   uint64 `json:"offset,omitempty"`
	ReadOnly bool   `json:"read_only,omitempty"`
	MapInfo  uint32 `json:"map_info,omitempty"`
}

func resourceKey(id uint32) string { return "resource " + strconv.FormatUint(uint64(id), 10) }

// enter says on the page what is served.
func (d *Device) enter(r *request) {
	if d.cfg.Page == nil {
		return
	}
	name := ""
	if c := d.contexts[r.hdr.CtxID]; c != nil {
		name = c.name
	} else if r.hdr.Type == virtiogpu.CmdCtxCreate {
		var c virtiogpu.CtxCreate
		if c.Decode(r.body) == nil {
			name = c.DebugName()
		}
	}
	d.cfg.Page.Enter(uint32(r.hdr.Type), r.hdr.CtxID, name)
}

// keepCreated keeps a new resource; body is the command that made it.
func (d *Device) keepCreated(res *resource, body []byte) {
	if d.cfg.Keep == nil || d.restoring {
		return
	}
	res.create = slices.Clone(body)
	d.keepResource(res)
}

// keepAttached keeps what backing a resource has; body is the command, nil for none.
func (d *Device) keepAttached(res *resource, body []byte) {
	if d.cfg.Keep == nil || res.create == nil || d.restoring {
		return
	}
	res.attach = slices.Clone(body)
	d.keepResource(res)
}

// keepResource keeps a resource as it is now, if it is one of those.
func (d *Device) keepResource(res *resource) {
	if d.cfg.Keep == nil || res.create == nil || d.restoring {
		return
	}
	k := keptResource{Create: res.create, Attach: res.attach}
	if res.hasUUID {
		k.UUID = res.uuid[:]
	}
	var pixels *dmabuf.FD
	if b := res.blob; b != nil {
		pixels, k.ReadOnly, k.MapInfo = b.host, b.readOnly, b.mapInfo
		if b.place != nil {
			k.Mapped, k.Offset = true, b.place.offset
		}
	} else if res.buf != nil && res.buf.Kind == dmabuf.KindShm {
		pixels = res.buf.Planes[0].FD
	}
	value, err := json.Marshal(k)
	if err != nil {
		d.log.Error("resource not kept", zap.Uint32("resource", res.id), zap.Error(err))
		return
	}
	d.cfg.Keep.Put(resourceKey(res.id), value, pixels)
}

// keepGone forgets a resource.
func (d *Device) keepGone(res *resource) {
	if res.create != nil {
		d.cfg.Keep.Drop(resourceKey(res.id))
	}
}
