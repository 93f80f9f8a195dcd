// Package smoke finds out what a machine can do for the broker, by doing it: it
// allocates, exports, draws, maps and compares, and says for everything that does not
// work why, and which command or package mends that.
//
// Every probe runs in a child process of the same program ([Options.Child],
// [ServeChild]): GL drivers and libvirglrenderer can crash, hang or be started only once
// in a process, and then that is a row of the report and not its end.
package smoke
