// Package windows tests the windows of real guests in mode B on a compositor that
// moves and resizes them: what the user does reaches the guest.
package windows
