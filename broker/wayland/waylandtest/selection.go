package waylandtest

import (
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proto"
	"github.com/gpubroker/gpubroker/broker/wayland/wire"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// source is a wl_data_source or a primary one; offers refer to it.
type source struct {
	cl      *client
	o       *object
	primary bool
	types   []string
}

// offer is a wl_data_offer or a primary one.
type offer struct{ from *source }

func createSource(primary bool) func(cl *client, _ *object, m wire.Message) error {
	return func(cl *client, _ *object, m wire.Message) error {
		var a proto.WlDataDeviceManagerCreateDataSourceRequest
		if err := a.Decode(m); err != nil {
			return err
		}
		o := cl.objects[wire.ID(a.Id)]
		o.data = &source{cl: cl, o: o, primary: primary}
		return nil
	}
}

func offerType(_ *client, o *object, m wire.Message) error {
	var a proto.WlDataSourceOfferRequest
	err := a.Decode(m)
	s := o.data.(*source)
	s.types = append(s.types, a.MimeType)
	return err
}

func getDevice(primary bool) func(cl *client, _ *object, m wire.Message) error {
	return func(cl *client, _ *object, m wire.Message) error {
		var a proto.WlDataDeviceManagerGetDataDeviceRequest
		if err := a.Decode(m); err != nil {
			return err
		}
		if primary {
			cl.primary = wire.ID(a.Id)
		} else {
			cl.device = wire.ID(a.Id)
		}
		if s := cl.c.selections[primary]; s != nil && s.cl != cl && slices.Contains(cl.c.clients, s.cl) {
			cl.offer(s)
		}
		return nil
	}
}

// setSelection offers a source to every other client.
func setSelection(cl *client, _ *object, m wire.Message) error {
	var a proto.WlDataDeviceSetSelectionRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	if a.Source == 0 {
		return nil
	}
	s := cl.objects[wire.ID(a.Source)].data.(*source)
	if cl.c.selections == nil {
		cl.c.selections = map[bool]*source{}
	}
	cl.c.selections[s.primary] = s
	for _, other := range cl.c.clients {
		if other != cl {
			other.offer(s)
		}
	}
	return nil
}

func (cl *client) offer(s *source) {
	switch out := cl.out(); {
	case s.primary && cl.primary != 0:
		o := cl.createServer(proto.IZwpPrimarySelectionOfferV1, 1)
		o.data = &offer{s}
		dev, id := proto.ZwpPrimarySelectionDeviceV1(cl.primary), proto.ZwpPrimarySelectionOfferV1(o.id)
		dev.SendDataOffer(out, id)
		for _, mime := range s.types {
			id.SendOffer(out, mime)
		}
		dev.SendSelection(out, id)
	case !s.primary && cl.device != 0:
		o := cl.createServer(proto.IWlDataOffer, 3)
		o.data = &offer{s}
		dev, id := proto.WlDataDevice(cl.device), proto.WlDataOffer(o.id)
		dev.SendDataOffer(out, id)
		for _, mime := range s.types {
			id.SendOffer(out, mime)
		}
		dev.SendSelection(out, id)
	}
}

// receiveOffer passes the pipe to the source's client.
func receiveOffer(_ *client, o *object, m wire.Message) error {
	var a proto.WlDataOfferReceiveRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	s := o.data.(*offer).from
	if !slices.Contains(s.cl.c.clients, s.cl) {
		return a.Fd.Close()
	}
	if s.primary {
		proto.ZwpPrimarySelectionSourceV1(s.o.id).SendSend(s.cl.out(), a.MimeType, a.Fd)
	} else {
		proto.WlDataSource(s.o.id).SendSend(s.cl.out(), a.MimeType, a.Fd)
	}
	return nil
}

// setICC notes the contents of colour profiles.
func setICC(cl *client, _ *object, m wire.Message) error {
	var a proto.WpImageDescriptionCreatorIccV1SetIccFileRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	f := os.NewFile(uintptr(a.IccProfile.Disown()), "icc")
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, int64(a.Offset), int64(a.Length)))
	cl.c.mu.Lock()
	cl.c.profiles = append(cl.c.profiles, string(b))
	cl.c.mu.Unlock()
	return err
}

// Profiles returns the colour profiles that clients set.
func (c *Compositor) Profiles() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.profiles...)
}

// getInformation describes a picture by a colour profile.
func getInformation(cl *client, _ *object, m wire.Message) error {
	var a proto.WpImageDescriptionV1GetInformationRequest
	if err := a.Decode(m); err != nil {
		return err
	}
	fd := memfdOf("icc", cl.c.cfg.ICC)
	a.Information.SendIccFile(cl.out(), fd, uint32(len(cl.c.cfg.ICC)))
	a.Information.SendDone(cl.out())
	cl.destroy(cl.objects[wire.ID(a.Information)])
	return nil
}

// memfdOf makes a file of a text.
func memfdOf(name, text string) *dmabuf.FD {
	raw, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		panic(err)
	}
	if _, err := unix.Pwrite(raw, []byte(text), 0); err != nil {
		panic(err)
	}
	return dmabuf.NewFD(raw, name)
}
