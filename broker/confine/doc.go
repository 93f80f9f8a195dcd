// Package confine takes from a process what it does not need, before it loads a driver:
// files, programs, networks, other processes (landlock, no_new_privs, rlimits).
//
// Landlock binds a thread and those that it starts later, and a Go program with purego
// has no way to reach the others; so the process restricts one thread and executes
// itself from it, which leaves that thread alone.
package confine
