package hostile

import "context"

// MutationReport is about mutated traffic.
type MutationReport struct{}

func (r *runner) mutate(context.Context) error { return nil }
