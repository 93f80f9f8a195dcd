package broker

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newLoop(t *testing.T) *Loop {
	t.Helper()
	l, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestLoopRunsEverythingOnOneThread(t *testing.T) {
	l := newLoop(t)
	var first int
	l.Call(func() { first = unix.Gettid() })
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 200 {
				l.Call(func() {
					if tid := unix.Gettid(); tid != first {
						t.Errorf("ran on thread %d, want %d", tid, first)
					}
				})
			}
		}()
	}
	wg.Wait()
}

func TestLoopWatch(t *testing.T) {
	l := newLoop(t)
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	got := make(chan struct{}, 8)
	var buf [8]byte
	l.Call(func() {
		l.Watch(fd, func(bool) {
			_, _ = unix.Read(fd, buf[:])
			got <- struct{}{}
		})
	})
	kick := [8]byte{1}
	for range 3 {
		if _, err := unix.Write(fd, kick[:]); err != nil {
			t.Fatal(err)
		}
		select {
		case <-got:
		case <-time.After(5 * time.Second):
			t.Fatal("the watch was not called")
		}
	}
	l.Call(func() { l.Unwatch(fd) })
	if _, err := unix.Write(fd, kick[:]); err != nil {
		t.Fatal(err)
	}
	l.Call(func() {})
	select {
	case <-got:
		t.Fatal("called after Unwatch")
	default:
	}
}

func TestLoopAfterClose(t *testing.T) {
	l, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	ran := false
	l.Post(func() { ran = true })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if !ran {
		t.Error("a function posted before Close did not run")
	}
	if l.Post(func() {}) {
		t.Error("Post after Close said yes")
	}
	l.Call(func() { t.Error("Call after Close ran its function") })
}

func BenchmarkPost(b *testing.B) {
	l, err := NewLoop()
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	done := make(chan struct{}, 1)
	f := func() { done <- struct{}{} }
	b.ReportAllocs()
	for b.Loop() {
		l.Post(f)
		<-done
	}
}
