// Package confine takes from a process what it does not need, before it loads a driver:
// files, programs, networks, other processes (landlock, no_new_privs, rlimits), and what
// of the kernel a renderer has no use for (seccomp).
//
// Landlock binds a thread and those that it starts later, and a Go program with purego
// has no way to reach the others; so [Exec] restricts one thread and executes the program
// from it, which leaves that thread alone. A seccomp filter can reach them, and it forbids
// to execute programs: [Filter] comes after that.
package confine
