package clients

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
)

// Result is one line of the report.
type Result struct {
	Client     string  `json:"client"`
	Transport  string  `json:"transport"` // "direct" for a run without gpubroker
	Compositor string  `json:"compositor"`
	OK         bool    `json:"ok"`
	Why        string  `json:"why"` // why not, or what was compared
	Seconds    float64 `json:"seconds"`
	// Windows are what the broker counted of the client's windows.
	Windows []proxy.WindowStats `json:"windows,omitempty"`

	Look *Look  `json:"-"` // nil if it has no window
	Text string `json:"-"` // what it printed, if that is what counts
}

// interval is the time between looks, and pictures how many are compared with the
// direct run's, of which there are as many as fit into the client's period.
const (
	interval      = 100 * time.Millisecond
	pictures      = 8
	defaultPeriod = 2 * time.Second
)

// defaultStart bounds the time to the first picture on this machine.
const defaultStart = 20 * time.Second

// Run runs a client and judges it by its direct run; without one (want is nil or
// failed) only by itself.
func Run(ctx context.Context, c *Case, comp *Compositor, at Place, want *Result) *Result {
	begun := time.Now()
	r := &Result{Client: c.Name, Transport: at.Name(), Compositor: comp.Name}
	if want != nil && !want.OK {
		want = nil
	}
	err := r.run(ctx, c, comp, at, want)
	for range c.Again {
		if !errors.Is(err, errEnded) {
			break
		}
		err = r.run(ctx, c, comp, at, want)
	}
	r.OK = err == nil
	if err != nil {
		r.Why, _, _ = strings.Cut(err.Error(), "\n") // the lab's errors go on with commands and logs
	}
	r.Seconds = time.Since(begun).Seconds()
	return r
}

func (r *Result) run(ctx context.Context, c *Case, comp *Compositor, at Place, want *Result) error {
	if ok, why := at.Has(c.Needs); !ok {
		return errors.New(why)
	}
	if err := blank(ctx, comp, at); err != nil {
		return err
	}
	client, err := at.Start(ctx, c.Run)
	if err != nil {
		return err
	}
	defer client.Stop()
	start := c.Start
	if start == 0 {
		start = defaultStart
	}
	ctx, cancel := context.WithTimeout(ctx, start*time.Duration(at.Slow()))
	defer cancel()
	if c.Kind == Text {
		return r.text(ctx, c, client, want)
	}
	var last error // what was wrong with the look before
	for {
		err := r.look(ctx, c, comp, client, want)
		switch {
		case err == nil:
			return r.count(at)
		case errors.Is(err, errEnded):
			return err
		case ctx.Err() != nil && last != nil:
			return last
		case ctx.Err() != nil:
			return err
		}
		last = err
	}
}

// count asks the broker for what it counted.
func (r *Result) count(at Place) error {
	rig, ok := at.(Rig)
	if !ok {
		return nil
	}
	st, err := rig.Broker().Status()
	if err != nil {
		return err
	}
	if r.Windows = st.Windows; len(r.Windows) == 0 {
		return errors.New("the broker knows of no window")
	}
	return nil
}

var errEnded = errors.New("the client ended")

// alive returns an error that wraps errEnded once the client has ended.
func alive(ctx context.Context, client Client) error {
	ended, code, err := client.Ended(ctx)
	if err != nil {
		return err
	}
	if ended {
		return fmt.Errorf("%w with code %d: %s", errEnded, code, lastLines(client.Log(), 5))
	}
	return nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}

// text waits for the client's end and looks at what it printed.
func (r *Result) text(ctx context.Context, c *Case, client Client, want *Result) error {
	for {
		ended, code, err := client.Ended(ctx)
		if err != nil {
			return err
		}
		if ended && code != 0 {
			return fmt.Errorf("exit code %d: %s", code, lastLines(client.Log(), 5))
		}
		if ended {
			break
		}
		if err := sleep(ctx, interval); err != nil {
			return fmt.Errorf("it did not end: %w: %s", err, lastLines(client.Log(), 5))
		}
	}
	r.Text = client.Log()
	var missing []string
	for _, s := range c.Prints {
		if !strings.Contains(r.Text, s) {
			missing = append(missing, s)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("it did not print %s", strings.Join(missing, ", "))
	}
	if want == nil {
		return nil
	}
	direct, here := globals(want.Text), globals(r.Text)
	for name, version := range here {
		if version > direct[name] && !ours[name] {
			return fmt.Errorf("%s has version %d, directly %d", name, version, direct[name])
		}
	}
	r.Why = fmt.Sprintf("%d of the compositor's %d globals", len(here), len(direct))
	return nil
}

// ours are globals that the proxy may offer by itself.
var ours = map[string]bool{"zwp_linux_dmabuf_v1": true, "wp_linux_drm_syncobj_manager_v1": true}

var globalLine = regexp.MustCompile(`interface: '(\w+)', +version: +(\d+)`)

// globals reads wayland-info's list.
func globals(text string) map[string]int {
	out := map[string]int{}
	for _, m := range globalLine.FindAllStringSubmatch(text, -1) {
		v, _ := strconv.Atoi(m[2]) // digits only
		out[m[1]] = max(out[m[1]], v)
	}
	return out
}

// blank waits until the window of the client before is gone.
func blank(ctx context.Context, comp *Compositor, at Place) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second*time.Duration(at.Slow()))
	defer cancel()
	for {
		l := NewLook(comp.empty)
		p, err := comp.Shoot(ctx)
		if err != nil {
			return err
		}
		if err := l.Add(p); err != nil || l.Empty() {
			return err
		}
		if err := sleep(ctx, interval); err != nil {
			return errors.New("the window of the client before does not go away")
		}
	}
}

// look takes pictures until the client shows what it should, once.
func (r *Result) look(ctx context.Context, c *Case, comp *Compositor, client Client, want *Result) error {
	for { // until there is a window
		r.Look = NewLook(comp.empty)
		p, err := comp.Shoot(ctx)
		if err != nil {
			return err
		}
		if err := r.Look.Add(p); err != nil {
			return err
		}
		if !r.Look.Empty() {
			break
		}
		if err := alive(ctx, client); err != nil {
			return err
		}
		if err := sleep(ctx, interval); err != nil {
			return fmt.Errorf("no window: %w: %s", err, lastLines(client.Log(), 5))
		}
	}
	if want == nil || c.Kind != Still {
		// What a client shows first is not all of it.
		if err := sleep(ctx, 10*interval); err != nil {
			return err
		}
	}
	r.Look = NewLook(comp.empty)
	n, end := pictures, time.Now()
	switch {
	case c.Kind == Still && want != nil:
		n = 1
	case c.Kind == Moves && want == nil:
		end = end.Add(max(c.Period, defaultPeriod))
	}
	for i := 0; i < n || time.Now().Before(end); i++ {
		if err := sleep(ctx, interval); err != nil {
			return err
		}
		p, err := comp.Shoot(ctx)
		if err != nil {
			return err
		}
		if err := r.Look.Add(p); err != nil {
			return err
		}
	}
	err := alive(ctx, client)
	if err != nil {
		return err
	}
	if want != nil && want.Look != nil {
		r.Why, err = c.Same(r.Look, want.Look)
		return err
	}
	switch {
	case r.Look.Empty():
		return errors.New("its window went away")
	case c.Kind != Moves && r.Look.Changes > 0:
		return errors.New("its window does not come to rest")
	case c.Kind == Moves && r.Look.Changes == 0:
		return errors.New("its window does not move")
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
