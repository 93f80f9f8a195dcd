// Package dmabuf holds what every other part of gpubroker passes around: file
// descriptors with one owner each ([FD]), and graphics buffers made of them
// ([Buffer]), be they dma-bufs or shared memory files.
//
// Above a Buffer nothing knows whether its pixels came from virgl, from a GBM
// buffer object or from a memfd; below it nothing knows whether they leave as a
// dma-buf or as shared memory. The package imports no other part of gpubroker.
package dmabuf
