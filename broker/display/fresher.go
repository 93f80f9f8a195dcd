package display

// Fresher is a [Sink] whose display tells its modes only when asked, such as
// QEMU's. Before the broker answers the guest's GET_DISPLAY_INFO or GET_EDID it
// calls Freshen and answers when done was called; other commands go on meanwhile.
// Without it the guest gets the modes of the question before.
type Fresher interface {
	// Freshen asks the display and calls done, once, when Mode and EDID have its
	// answers or when it is clear that none will come; within about a second. done
	// may run on any goroutine, before Freshen returns too. Freshen does not block.
	Freshen(done func())
}
