package link

import "fmt"

// ItemKind says what stands for a descriptor.
type ItemKind uint8

const (
	ItemResource ItemKind = iota + 1 // a virtio-gpu resource; from the guest
	ItemPipe                         // the write end of a pipe
	ItemBytes                        // read-only memory, by value
	ItemMemory                       // memory whose content comes as updates; from the guest

	itemEnd
)

func (k ItemKind) String() string {
	names := [...]string{ItemResource: "resource", ItemPipe: "pipe", ItemBytes: "bytes", ItemMemory: "memory"}
	if k == 0 || k >= itemEnd {
		return fmt.Sprintf("item kind %d", uint8(k))
	}
	return names[k]
}

// Devices of ItemResource.
const (
	DeviceGPU    = 0
	DeviceImport = 1
)

// Item stands for one descriptor.
type Item struct {
	Kind   ItemKind
	Device uint8  // ItemResource: DeviceGPU or DeviceImport
	ID     uint32 // ItemResource: resource id; ItemPipe: pipe id
	Offset uint64 // ItemResource: bytes into the resource
	Bytes  []byte // ItemBytes: content
}

// size returns the bytes that the item takes in a frame.
func (it *Item) size() int { return itemSize + pad8(len(it.Bytes)) }

func pad8(n int) int { return (n + 7) &^ 7 }

// appendItems encodes what a Wayland frame's payload has before the Wayland bytes.
func appendItems(dst []byte, items []Item) []byte {
	dst = le.AppendUint16(dst, uint16(len(items)))
	dst = append(dst, 0, 0)
	for i := range items {
		it := &items[i]
		id := it.ID
		if it.Kind == ItemBytes {
			id = uint32(len(it.Bytes))
		}
		dst = append(dst, byte(it.Kind), it.Device, 0, 0)
		dst = le.AppendUint32(dst, id)
		dst = le.AppendUint64(dst, it.Offset)
		dst = append(dst, it.Bytes...)
		for range pad8(len(it.Bytes)) - len(it.Bytes) {
			dst = append(dst, 0)
		}
	}
	return dst
}

// SizeItems returns the bytes that items take in a Wayland frame: MaxPayload less
// this is the room for Wayland bytes. ErrTooBig if they do not fit at all.
func SizeItems(items []Item) (int, error) {
	if len(items) > MaxItems {
		return 0, fmt.Errorf("%w: %d items in a frame, limit %d", ErrTooBig, len(items), MaxItems)
	}
	n := 4
	for i := range items {
		if len(items[i].Bytes) > MaxBytes {
			return 0, fmt.Errorf("%w: item of %d bytes, limit %d", ErrTooBig, len(items[i].Bytes), MaxBytes)
		}
		n += items[i].size()
	}
	if n > MaxPayload {
		return 0, fmt.Errorf("%w: %d items of %d bytes, limit %d", ErrTooBig, len(items), n, MaxPayload)
	}
	return n, nil
}

// DecodeWayland reads the payload of a Wayland frame that from sent. It appends the
// items to the given slice; the items' content and the returned Wayland bytes lie in
// p. On error the slice is returned as it was.
func DecodeWayland(p []byte, from Role, items []Item) ([]Item, []byte, error) {
	if len(p) < 4 {
		return items, nil, protocol("Wayland frame of %d bytes, need 4", len(p))
	}
	n := int(le.Uint16(p))
	if n > MaxItems {
		return items, nil, protocol("Wayland frame: %d items, limit %d", n, MaxItems)
	}
	if z := le.Uint16(p[2:]); z != 0 {
		return items, nil, protocol("Wayland frame: zero field is %#x", z)
	}
	rest, out := p[4:], items
	for i := range n {
		it, after, err := decodeItem(rest, from)
		if err != nil {
			return items, nil, protocol("item %d of %d: %v", i, n, err)
		}
		out, rest = append(out, it), after
	}
	return out, rest, nil
}

func decodeItem(p []byte, from Role) (Item, []byte, error) {
	if len(p) < itemSize {
		return Item{}, nil, fmt.Errorf("%d bytes left, need %d", len(p), itemSize)
	}
	it := Item{Kind: ItemKind(p[0]), Device: p[1], ID: le.Uint32(p[4:]), Offset: le.Uint64(p[8:])}
	zero := le.Uint16(p[2:])
	p = p[itemSize:]
	if it.Kind == 0 || it.Kind >= itemEnd {
		return Item{}, nil, fmt.Errorf("kind %d, known are 1 to %d", it.Kind, itemEnd-1)
	}
	if zero != 0 {
		return Item{}, nil, fmt.Errorf("%v: zero field is %#x", it.Kind, zero)
	}
	if it.Kind == ItemResource {
		if from != Guest {
			return Item{}, nil, fmt.Errorf("%v from the host", it.Kind)
		}
		if it.Device > DeviceImport || it.ID == 0 {
			return Item{}, nil, fmt.Errorf("%v: device %d id %d, must be device 0 or 1 and not id 0", it.Kind, it.Device, it.ID)
		}
		return it, p, nil
	}
	if it.Device != 0 || it.Offset != 0 {
		return Item{}, nil, fmt.Errorf("%v: device %d and offset %d, must be 0", it.Kind, it.Device, it.Offset)
	}
	switch it.Kind {
	case ItemPipe:
		if (it.ID&1 != 0) != (from == Guest) || it.ID == 0 {
			return Item{}, nil, fmt.Errorf("pipe id %d: the guest's are odd, the host's even, none is 0", it.ID)
		}
	case ItemBytes:
		n := it.ID
		if n > MaxBytes || pad8(int(n)) > len(p) {
			return Item{}, nil, fmt.Errorf("content of %d bytes, there are %d, limit %d", n, len(p), MaxBytes)
		}
		for _, b := range p[n:pad8(int(n))] {
			if b != 0 {
				return Item{}, nil, fmt.Errorf("padding after %d bytes is not 0", n)
			}
		}
		it.ID, it.Bytes, p = 0, p[:n:n], p[pad8(int(n)):]
	case ItemMemory:
		if from != Guest || it.ID != 0 {
			return Item{}, nil, fmt.Errorf("%v with id %d from role %d: only the guest sends it, with id 0", it.Kind, it.ID, from)
		}
	}
	return it, p, nil
}
