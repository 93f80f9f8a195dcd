package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/gpubroker/gpubroker/testing/dmabufcase"
)

// frames counts frames by the way they went.
type frames struct {
	DMABuf uint64 `json:"dmabuf"`
	Shm    uint64 `json:"shm"`
}

// reportJSON is out/dmabuf/report.json. Frames and BytesCopied are those of the
// cases that have to take dma-bufs.
type reportJSON struct {
	Cases       []dmabufcase.Result      `json:"cases"`
	Frames      frames                   `json:"frames"`
	BytesCopied uint64                   `json:"bytes_copied"`
	WrongPixels int                      `json:"wrong_pixels"`
	Pictures    int                      `json:"pictures"`
	LeakedFDs   int                      `json:"leaked_fds"`
	Problems    int                      `json:"problems"`
	Hosts       map[string]frames        `json:"frames_by_host"`
	Stages      []dmabufcase.StageResult `json:"stages"`
	Seconds     float64                  `json:"seconds"`
	Versions    map[string]string        `json:"versions"`
}

// sum fills in what follows from the stages, and moves their cases to the top.
func (r *reportJSON) sum() {
	r.Hosts = map[string]frames{}
	for i := range r.Stages {
		s := &r.Stages[i]
		r.LeakedFDs += s.LeakedFDs()
		r.Problems += len(s.Problems)
		for _, c := range s.Cases {
			f := r.Hosts[s.Host]
			f.DMABuf += c.DMABuf
			f.Shm += c.Shm
			r.Hosts[s.Host] = f
			if c.ZeroCopy() {
				r.Frames.DMABuf += c.DMABuf
				r.Frames.Shm += c.Shm
				r.BytesCopied += c.BytesCopied
			}
			r.WrongPixels += c.WrongPixels
			r.Pictures += c.Pictures
			r.Problems += len(c.Problems)
		}
		r.Cases = append(r.Cases, s.Cases...)
		s.Cases = nil
	}
}

// print shows a line for each stage, and every problem.
func (r *reportJSON) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\nstage\tcases\tpictures\twrong pixels\tdma-buf\tshm\tcopied MB\tfds\tdma-bufs\tmemory MB\tseconds\t")
	for i := range r.Stages {
		r.row(t, &r.Stages[i])
	}
	_ = t.Flush()
	fmt.Fprintln(w)
	for i := range r.Stages {
		for _, p := range r.Stages[i].Problems {
			fmt.Fprintf(w, "%s: %s\n", r.Stages[i].Name, p)
		}
	}
	for i := range r.Cases {
		for _, p := range r.Cases[i].Problems {
			fmt.Fprintf(w, "%s %s: %s\n", r.Cases[i].Stage, r.Cases[i].Name, p)
		}
	}
}

func (r *reportJSON) row(w io.Writer, s *dmabufcase.StageResult) {
	var cases, pictures, wrong int
	var f frames
	var copied uint64
	for _, c := range r.Cases {
		if c.Stage != s.Name {
			continue
		}
		cases++
		pictures += c.Pictures
		wrong += c.WrongPixels
		f.DMABuf += c.DMABuf
		f.Shm += c.Shm
		copied += c.BytesCopied
	}
	change := func(before, after int) string { return fmt.Sprintf("%d→%d", before, after) }
	bufs := "–"
	if s.Start.DMABufs >= 0 {
		bufs = change(s.Start.DMABufs, s.End.DMABufs)
	}
	fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%.1f\t%s\t%s\t%s\t%.1f\t\n", s.Name, cases, pictures, wrong, f.DMABuf, f.Shm,
		float64(copied)/1e6, change(s.Start.BrokerFDs, s.End.BrokerFDs), bufs,
		change(s.Start.BrokerRSSKB/1024, s.End.BrokerRSSKB/1024), s.Seconds)
}

// verdict says whether everything was as it should be.
func (r *reportJSON) verdict() error {
	switch {
	case r.Problems > 0:
		return fmt.Errorf("%d things are not as they should be; they are listed above and in the report", r.Problems)
	case len(r.Cases) == 0:
		return errors.New("no case ran")
	}
	return nil
}
