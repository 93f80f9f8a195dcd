package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// ErrExited says that a program of the lab ended before it was asked to.
var ErrExited = errors.New("program ended")

// process is a running program of the root with its output's tail.
type process struct {
	name string
	cmd  *exec.Cmd
	out  *tailWriter
	kill context.CancelFunc
	done chan struct{} // closed when it ended
	err  error         // what cmd.Wait said; valid once done is closed
}

// startProcess starts argv in the root. Its output goes to log, which may be nil.
func (r *Root) startProcess(opt CommandOptions, log io.Writer, argv ...string) (*process, error) {
	ctx, kill := context.WithCancel(context.Background())
	p := &process{
		name: argv[0],
		cmd:  r.Command(ctx, opt, argv...),
		out:  &tailWriter{next: log},
		kill: kill,
		done: make(chan struct{}),
	}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	release, err := Start(p.cmd)
	if err != nil {
		kill()
		return nil, fmt.Errorf("start %s: %w\n\t%s", p.name, err, quote(p.cmd.Args))
	}
	go func() {
		p.err = p.cmd.Wait()
		release()
		close(p.done)
	}()
	return p, nil
}

// stop kills the program with all its children and waits for its end.
func (p *process) stop() {
	p.kill()
	<-p.done
}

// alive returns an error that wraps ErrExited once the program has ended.
func (p *process) alive() error {
	select {
	case <-p.done:
		return p.failure("", fmt.Errorf("%w: %v", ErrExited, p.err))
	default:
		return nil
	}
}

// failure adds the command line and the last output to err.
func (p *process) failure(op string, err error) error {
	if op != "" {
		op = " " + op
	}
	return fmt.Errorf("%s%s: %w\n  command:\n\t%s\n  last output:\n%s", p.name, op, err, quote(p.cmd.Args), p.out.last(30))
}

// waitFor polls until ready reports true, the program ends or ctx does.
func (p *process) waitFor(ctx context.Context, op string, ready func() bool) error {
	for wait := 5 * time.Millisecond; !ready(); wait = min(2*wait, 100*time.Millisecond) {
		select {
		case <-p.done:
			return p.alive()
		case <-ctx.Done():
			return p.failure(op, context.Cause(ctx))
		case <-time.After(wait):
		}
	}
	return nil
}

// quote writes a command line that a shell reads back.
func quote(args []string) string {
	var b strings.Builder
	for i, arg := range args {
		if i > 0 {
			b.WriteByte(' ')
		}
		if arg != "" && !strings.ContainsAny(arg, " \t\n'\"\\$`!*?[]{}()<>|&;~#") {
			b.WriteString(arg)
			continue
		}
		b.WriteString("'" + strings.ReplaceAll(arg, "'", `'\''`) + "'")
	}
	return b.String()
}
