package proxytest

import (
	"context"
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
)

// Recv takes the next chunk of a guest's, and fails the test if none comes.
func Recv(t testing.TB, g proxy.Guest) proxy.Chunk {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := g.Recv(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
