// Package appwindow shows how a guest program's GPU buffer reaches the compositor:
// a fake guest draws textures with virgl commands, its Wayland client names them by
// their resource ids over a link, and a real gpubroker hands them to a real weston.
// Inside a machine that has dma-bufs nothing is copied; elsewhere the same client is
// shown by copies, which are counted.
package appwindow
