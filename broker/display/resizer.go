package display

// Resizer is a [Sink] with windows that the user may resize, which changes Mode and
// raises Events.ModeChanged, as long as the guest can be told.
type Resizer interface {
	// Resizable says whether it can. Any goroutine; it does not block.
	Resizable(on bool)
}
