package clients

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"
)

// clipboardBytes is how much is copied and pasted.
const clipboardBytes = 10 << 20

// Clipboards copies at one place and pastes at the other, both ways, and between two
// clients of the guest. The compositor must have a keyboard: what has no focus gets
// no selection.
func Clipboards(ctx context.Context, comp *Compositor, guest, host Place) []*Result {
	var out []*Result
	for i, c := range []struct {
		name     string
		from, to Place
		option   string // of both programs
		size     int
	}{
		{"wl-copy in the guest, wl-paste on the host", guest, host, "", clipboardBytes},
		{"wl-copy on the host, wl-paste in the guest", host, guest, "", clipboardBytes},
		{"wl-copy and wl-paste in the guest", guest, guest, "", clipboardBytes},
		{"primary selection, guest to host", guest, host, "--primary", 100 << 10},
		{"primary selection, host to guest", host, guest, "--primary", 100 << 10},
	} {
		begun := time.Now()
		r := &Result{Client: c.name, Transport: guest.Name(), Compositor: comp.Name}
		err := clipboard(ctx, c.from, c.to, c.option, 1000+i, c.size)
		if r.OK = err == nil; r.OK {
			r.Why = fmt.Sprintf("%d bytes, same checksum", c.size)
		} else {
			r.Why = err.Error()
		}
		r.Seconds = time.Since(begun).Seconds()
		out = append(out, r)
	}
	return out
}

// clipboard moves size bytes, which begin with the number first.
func clipboard(ctx context.Context, from, to Place, option string, first, size int) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second*time.Duration(max(from.Slow(), to.Slow())))
	defer cancel()
	owner, err := from.Start(ctx, fmt.Sprintf("seq %d 100000000 | head -c %d >$HOME/data\nexec wl-copy %s --foreground --type application/octet-stream <$HOME/data", first, size, option))
	if err != nil {
		return err
	}
	defer owner.Stop()
	paste, err := to.Start(ctx, fmt.Sprintf(`for i in $(seq 100); do
	wl-paste %[1]s --list-types | grep -q octet-stream && break
	sleep 0.2
done
wl-paste %[1]s --no-newline --type application/octet-stream >$HOME/data || exit 1
wc -c <$HOME/data
sha256sum <$HOME/data`, option))
	if err != nil {
		return err
	}
	defer paste.Stop()
	for {
		ended, code, err := paste.Ended(ctx)
		if err != nil {
			return err
		}
		if ended && code != 0 {
			return fmt.Errorf("wl-paste: exit code %d: %s; wl-copy: %s", code, lastLines(paste.Log(), 3), lastLines(owner.Log(), 3))
		}
		if ended {
			break
		}
		if err := sleep(ctx, interval); err != nil {
			return fmt.Errorf("wl-paste does not end: %s; wl-copy: %s", lastLines(paste.Log(), 3), lastLines(owner.Log(), 3))
		}
	}
	if want := numbers(first, size); !strings.Contains(paste.Log(), want) {
		return errors.New("wrong content: " + lastLines(paste.Log(), 2) + ", not " + want)
	}
	return nil
}

// numbers returns the checksum of what seq writes from first on.
func numbers(first, size int) string {
	h := sha256.New()
	for n := first; size > 0; n++ {
		line := fmt.Sprintln(n)
		line = line[:min(len(line), size)]
		size -= len(line)
		h.Write([]byte(line))
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}
