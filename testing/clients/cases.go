package clients

import (
	"slices"
	"time"
)

// Case is one client and how to judge it.
type Case struct {
	Name string
	Run  string // shell command; ends when it is killed
	Kind Kind
	// Channel is how far a colour of 255 may be off in the picture of a Still client, and
	// Share which share of the pixels may be off by more.
	Channel int
	Share   float64
	// Apart is how far the pictures of other clients may be apart, see [Look.Apart]
	// (defaultApart if 0), and Slack how far the window's edges, in pixels (frameSlack
	// if 0).
	Apart float64
	Slack int
	// Period is how long a moving client takes to show all that it shows; 2 s if 0.
	Period time.Duration
	// Again is how often to start a client anew that ended by itself.
	Again int
	// Prints must be in the output of a Text client.
	Prints []string
	// Needs is what not every place has.
	Needs Need
	// Start bounds the time to the right picture on this machine; places that are
	// slower multiply it. 20 s if 0.
	Start time.Duration
}

// Kind says what a client does, and with it how runs of it are compared.
type Kind uint8

// The kinds.
const (
	Moves  Kind = iota // it never stops: many pictures, on average
	Still              // its window comes to rest: pixel by pixel
	Varies             // it comes to rest, each time in a different way: on average
	Text               // it prints and ends
)

// Need says what a client needs of its place.
type Need uint8

// The needs.
const (
	NeedDMABuf   Need = 1 << iota // zwp_linux_dmabuf_v1, that is a render node
	NeedFeedback                  // version 4 of it
	NeedKeyboard                  // a seat with a keyboard
)

// defaultApart is the distance within which two series of pictures of a moving
// client show the same.
const defaultApart = 10

// terminalText is what the shell in a terminal writes: colours and lines that fill
// several rows.
const terminalText = `#!/bin/bash
printf '\033[?25l\033[2J\033[H'
for i in 1 2 3 4 5 6 7; do printf '\033[3%dm colour %d \033[1;4%dm bold \033[0m the quick brown fox 0123456789\n' $i $i $i; done
exec sleep 100000
`

// preamble sets up a client's home, the same everywhere.
const preamble = `export HOME=$(mktemp -d) GTK_A11Y=none GSETTINGS_BACKEND=memory NO_AT_BRIDGE=1 GTK_USE_PORTAL=0
mkdir -p $HOME/.config/gtk-4.0
printf '[Settings]\ngtk-enable-animations=false\ngtk-cursor-blink=false\ngtk-font-name=DejaVu Sans 11\n' >$HOME/.config/gtk-4.0/settings.ini
cat >$HOME/shell <<'EOS'
` + terminalText + `EOS
chmod 755 $HOME/shell
`

// Cases are the clients, in the order in which they run.
var Cases = []Case{
	{Name: "wayland-info", Run: "wayland-info", Kind: Text,
		Prints: []string{"wl_compositor", "wl_shm", "xdg_wm_base", "wl_output"}},
	{Name: "weston-simple-shm", Run: "exec weston-simple-shm", Apart: 35},
	{Name: "weston-simple-damage", Run: "exec weston-simple-damage --width=300 --height=200"},
	{Name: "weston-simple-damage-viewport", Run: "exec weston-simple-damage --width=300 --height=200 --use-viewport --use-damage-buffer"},
	// Through gpubroker it sometimes ends with "never been configured": the answer to its
	// roundtrip comes ahead of the configure event. That is not solved; a second start
	// lets the rest of the case be compared.
	{Name: "weston-presentation-shm", Run: "exec weston-presentation-shm -f", Apart: 35, Again: 4},
	{Name: "weston-simple-egl", Run: "exec weston-simple-egl", Apart: 15},
	{Name: "weston-simple-dmabuf-egl", Run: "exec weston-simple-dmabuf-egl -s 256 -e 0", Needs: NeedDMABuf},
	{Name: "weston-simple-dmabuf-feedback", Run: "exec weston-simple-dmabuf-feedback", Needs: NeedDMABuf | NeedFeedback},
	{Name: "weston-subsurfaces", Run: "exec weston-subsurfaces"},
	{Name: "weston-scaler", Run: "exec weston-scaler -b", Kind: Still},
	{Name: "weston-terminal", Run: "exec weston-terminal --shell=$HOME/shell", Kind: Still, Share: 0.002},
	{Name: "weston-cliptest", Run: "exec weston-cliptest", Kind: Still},
	{Name: "weston-dnd", Run: "exec weston-dnd", Kind: Varies, Apart: 30, Slack: 40},
	{Name: "glmark2-es2-wayland", Run: "exec glmark2-es2-wayland --size 400x300 -b build:duration=100000", Period: 5 * time.Second, Apart: 20, Slack: 60},
	{Name: "foot", Run: "exec foot -o cursor.blink=no -o 'font=DejaVu Sans Mono:size=12' $HOME/shell", Kind: Still},
	{Name: "gtk4-demo-cairo", Run: "GSK_RENDERER=cairo exec gtk4-demo", Kind: Still, Start: 40 * time.Second},
	{Name: "gtk4-demo-gl", Run: "GSK_RENDERER=ngl exec gtk4-demo", Kind: Still, Channel: 8, Share: 0.01, Start: 40 * time.Second},
	{Name: "es2gears_wayland", Run: "exec es2gears_wayland", Period: 5 * time.Second},
}

// Names returns the names of all cases.
func Names() []string {
	var names []string
	for _, c := range Cases {
		names = append(names, c.Name)
	}
	return names
}

// Find returns a case by its name.
func Find(name string) (Case, bool) {
	i := slices.IndexFunc(Cases, func(c Case) bool { return c.Name == name })
	if i < 0 {
		return Case{}, false
	}
	return Cases[i], true
}
