package main

import (
	"context"
	"fmt"
)

// measureQueue compares commands and 2D updates. Each measurement is made of one back-end
// after the other, and none of them is always the first.
func measureQueue(ctx context.Context, l lineup, o options, rep *Report) error {
	machines := map[string]*machine{}
	defer func() {
		for _, m := range machines {
			m.quit()
		}
	}()
	for _, name := range []string{ours, theirs, headless, echo} {
		m, err := l.boot(name)
		if err != nil {
			return err
		}
		machines[name] = m
	}
	commands, err := setUpCommands(machines)
	if err != nil {
		return err
	}
	updates, err := setUpUpdates(machines)
	if err != nil {
		return err
	}
	for round := range o.rounds {
		fmt.Printf("\rround %d of %d", round+1, o.rounds)
		for _, c := range commands {
			if err := inTurns(ctx, round, []string{ours, theirs, echo}, func(name string) error {
				return c.measure(machines[name], o, rep)
			}); err != nil {
				return err
			}
		}
		for _, u := range updates {
			if err := inTurns(ctx, round, []string{ours, theirs, headless, echo}, func(name string) error {
				return u.measure(machines[name], o, round == 0 || round == o.rounds-1, rep)
			}); err != nil {
				return err
			}
		}
	}
	fmt.Println()
	for _, name := range []string{ours, theirs} {
		mem, err := machines[name].proc.memory()
		if err != nil {
			return err
		}
		rep.add("anonymous memory after the updates", "MiB", name, float64(mem.Anon)/1024)
	}
	if p := machines[ours].FE.Problems(); len(p) > 0 {
		return fmt.Errorf("gpubroker does what QEMU would not like: %q", p)
	}
	return nil
}

// inTurns calls f for each name, beginning with another one in each round.
func inTurns(ctx context.Context, round int, names []string, f func(string) error) error {
	for i := range names {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := f(names[(round+i)%len(names)]); err != nil {
			return err
		}
	}
	return nil
}

// commandCase is one or two commands that are sent again and again.
type commandCase struct {
	name    string
	cmds    [][]byte
	single  bool // not in bursts
	display bool // needs the display's answer, so there is no limit
}

// smallID is the resource that the commands are about. Nothing shows it.
const smallID = 1

func setUpCommands(machines map[string]*machine) ([]commandCase, error) {
	for name, m := range machines {
		if name == echo {
			continue
		}
		b, err := m.Pages.Scattered(64 * 64 * 4)
		if err != nil {
			return nil, err
		}
		if err := m.all(create2D(smallID, 64, 64), attach(smallID, b)); err != nil {
			return nil, m.proc.explain(err)
		}
	}
	return []commandCase{
		{name: "RESOURCE_FLUSH, not shown", cmds: [][]byte{flush(smallID, rect(64, 64))}},
		{name: "TRANSFER_TO_HOST_2D 16x16", cmds: [][]byte{transfer(smallID, rect(16, 16), 0)}},
		{name: "CREATE_2D 64x64 and UNREF", cmds: [][]byte{create2D(smallID+1, 64, 64), unref(smallID + 1)}},
		{name: "GET_DISPLAY_INFO", cmds: [][]byte{displayInfo()}, single: true, display: true},
	}, nil
}

func (c commandCase) measure(m *machine, o options, rep *Report) error {
	name := m.proc.name
	if c.display && name == echo {
		return nil
	}
	r, err := m.oneByOne(c.cmds, o.each)
	if err != nil {
		return err
	}
	rep.goal(c.name+", one by one", "commands/s", name, r.perSecond, r.cpu)
	rep.goal(c.name+", latency p50", "µs", name, r.p50)
	rep.add(c.name+", latency p99", "µs", name, r.p99)
	if c.single {
		return nil
	}
	if r, err = m.bursts(c.cmds, o.each); err != nil {
		return err
	}
	rep.goal(fmt.Sprintf("%s, %d in flight", c.name, inFlight), "commands/s", name, r.perSecond, r.cpu)
	return nil
}
