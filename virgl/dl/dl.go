// Package dl loads C libraries at run time through purego, so that the program
// builds with CGO_ENABLED=0 and starts where a library is missing.
//
// A library is one Go struct of symbol addresses filled by [Library.Resolve].
// Calls made often go through purego.SyscallN with those addresses; calls made
// once or twice may use purego.RegisterFunc. Neither imports runtime/cgo, which
// does not link together with purego when cgo is off.
package dl

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/ebitengine/purego"
)

var (
	// ErrMissing says that none of a library's names could be loaded.
	ErrMissing = errors.New("library is missing")
	// ErrSymbol says that a library lacks a function that is required.
	ErrSymbol = errors.New("symbol is missing")
)

// Library is a loaded C library. Libraries stay loaded for the life of the
// process: drivers that they pull in do not survive unloading.
type Library struct {
	name   string
	pkg    string
	handle uintptr
}

// Spec says how to find a library.
type Spec struct {
	// Sonames are tried in order; the first that loads is used.
	Sonames []string
	// Package is the Debian package that has it, named in errors.
	Package string
}

// Open loads the first of the library's names that the dynamic linker finds. The
// error wraps [ErrMissing] and says what the linker said for every name, and
// which package to install.
func Open(s Spec) (*Library, error) {
	// dlerror's text belongs to the thread that called dlopen.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var failed []error
	for _, name := range s.Sonames {
		h, err := purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_GLOBAL)
		if err == nil {
			return &Library{name: name, pkg: s.Package, handle: h}, nil
		}
		failed = append(failed, err)
	}
	return nil, fmt.Errorf("%w: install the Debian package %s: %w", ErrMissing, s.Package, errors.Join(failed...))
}

// Name returns the soname that was loaded.
func (l *Library) Name() string { return l.name }

// Symbol is one function to look up. Addr stays 0 if an optional one is absent.
type Symbol struct {
	Name     string
	Addr     *uintptr
	Optional bool
}

// Resolve looks up all symbols and stores their addresses. Every required
// symbol that is absent is named in the one error, which wraps [ErrSymbol].
func (l *Library) Resolve(syms []Symbol) error {
	var missing []error
	for _, s := range syms {
		addr, err := purego.Dlsym(l.handle, s.Name)
		if err == nil {
			*s.Addr = addr
			continue
		}
		if !s.Optional {
			missing = append(missing, fmt.Errorf("%w: %s", ErrSymbol, s.Name))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%s is too old or not the expected library (Debian package %s): %w", l.name, l.pkg, errors.Join(missing...))
}
