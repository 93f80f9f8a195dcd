// Package gbm allocates and imports graphics buffers through libgbm, loaded at run
// time (see virgl/dl). Its buffers become [dmabuf.Buffer]s: for the pixels of 2D
// resources, for cursors, and to check what a driver makes of somebody else's
// dma-buf.
//
// libgbm's devices are not made for concurrent use, so a [Device] locks around each
// call; its methods, and those of its [BO]s, may be called from any goroutine.
package gbm
