package shm

// BlobMemory returns the mapped memory of a buffer.
func BlobMemory(b *Buffer) []byte { return b.mem }
