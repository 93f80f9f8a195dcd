package appwindow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
)

// overLink is a proxytest.Server at the other end of a link: gpubroker's
// --apps-socket.
type overLink struct{ path string }

// Serve carries what the guest says to the host, and back, until one ends.
func (l overLink) Serve(ctx context.Context, g proxy.Guest, owner proxy.Owner) error {
	conn, err := net.Dial("unix", l.path)
	if err != nil {
		return err
	}
	c, welcome, err := link.ClientHandshake(ctx, conn, link.Hello{Token: owner.Token, Name: "appwindow"}, link.Limits{})
	if err != nil {
		return err
	}
	if welcome.Flags&link.FlagGPUResources == 0 {
		_ = c.Close()
		return errors.New("the host takes no resources of the GPU")
	}
	done := make(chan error, 1)
	go func() { done <- fromHost(ctx, c, g) }()
	err = toHost(ctx, c, g)
	_ = c.Close()
	herr := <-done
	_ = g.Close()
	if err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	return errors.Join(err, herr)
}

func toHost(ctx context.Context, c *link.Conn, g proxy.Guest) error {
	for {
		chunk, err := g.Recv(ctx)
		if err != nil {
			return err
		}
		var items []link.Item
		for i := range chunk.Items {
			it := &chunk.Items[i]
			if it.Kind != proxy.ItemResource {
				return fmt.Errorf("item of kind %d", it.Kind)
			}
			items = append(items, link.Item{Kind: link.ItemResource, Device: uint8(it.Device), ID: it.Resource, Offset: it.Offset})
		}
		if err := c.WriteWayland(items, chunk.Data); err != nil {
			return err
		}
	}
}

func fromHost(ctx context.Context, c *link.Conn, g proxy.Guest) error {
	for {
		f, err := c.Recv()
		if err != nil {
			return err
		}
		if f.Type != link.TypeWayland {
			continue
		}
		items, data, err := link.DecodeWayland(f.Payload, link.Host, nil)
		if err != nil {
			return err
		}
		chunk := proxy.Chunk{Data: data}
		for i := range items {
			if items[i].Kind != link.ItemBytes {
				return fmt.Errorf("item of kind %v", items[i].Kind)
			}
			chunk.Items = append(chunk.Items, proxy.Item{Kind: proxy.ItemBytes, Bytes: items[i].Bytes})
		}
		if err := g.Send(ctx, chunk); err != nil {
			return err
		}
	}
}
