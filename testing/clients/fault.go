package clients

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Faults kills the compositor and the guest's display server below a client, brings
// them back, and has a new client shown: c, whose direct look is want.
func Faults(ctx context.Context, c *Case, comp *Compositor, rig Rig, want *Result) []*Result {
	var out []*Result
	for _, f := range []struct {
		name    string
		fault   func(context.Context) error
		restore func(context.Context) error
	}{
		{"compositor killed and restarted", func(context.Context) error { comp.Kill(); return nil }, comp.Restart},
		{"guest's display server killed and restarted", nil, rig.RestartGuest},
	} {
		begun := time.Now()
		r := &Result{Client: f.name, Transport: rig.Name(), Compositor: comp.Name}
		err := fault(ctx, c, comp, rig, f.fault, f.restore)
		if err == nil {
			if again := Run(ctx, c, comp, rig, want); !again.OK {
				err = fmt.Errorf("a new client: %s", again.Why)
			}
		}
		if r.OK = err == nil; r.OK {
			r.Why = "its client ended, the rest did not, and a new client works"
		} else {
			r.Why = err.Error()
		}
		r.Seconds = time.Since(begun).Seconds()
		out = append(out, r)
	}
	return out
}

func fault(ctx context.Context, c *Case, comp *Compositor, rig Rig, fault, restore func(context.Context) error) error {
	if err := blank(ctx, comp, rig); err != nil {
		return err
	}
	victim, err := rig.Start(ctx, c.Run)
	if err != nil {
		return err
	}
	defer victim.Stop()
	limit, cancel := context.WithTimeout(ctx, defaultStart*time.Duration(rig.Slow()))
	defer cancel()
	if err := shown(limit, comp, victim); err != nil {
		return err
	}
	if fault != nil {
		if err := fault(ctx); err != nil {
			return err
		}
		if err := rig.Healthy(ctx); err != nil {
			return err
		}
	}
	if err := restore(ctx); err != nil {
		return err
	}
	if err := rig.Healthy(ctx); err != nil {
		return err
	}
	for {
		if ended, _, err := victim.Ended(limit); ended || err != nil {
			return err
		}
		if err := sleep(limit, interval); err != nil {
			return errors.New("the client goes on without a compositor")
		}
	}
}

// shown waits for the client's window.
func shown(ctx context.Context, comp *Compositor, client Client) error {
	for {
		p, err := comp.Shoot(ctx)
		if err != nil {
			return err
		}
		l := NewLook(comp.empty)
		if err := l.Add(p); err != nil || !l.Empty() {
			return err
		}
		if err := alive(ctx, client); err != nil {
			return err
		}
		if err := sleep(ctx, interval); err != nil {
			return fmt.Errorf("no window: %w: %s", err, lastLines(client.Log(), 5))
		}
	}
}
