// Package supervise is the small process above the one that serves a VM. It holds what
// must survive that process, the worker: the front-ends' connections, what was said on
// them, and what the worker asks it to keep (package keep). When a worker dies it starts
// another, which goes on where the rings stand.
//
// Commands do not pass through it: the worker serves the rings by itself. Messages of
// the vhost-user protocol do, one after the other, so that one that a worker did not
// answer is given to the next. The package knows no GPU and no renderer.
package supervise
