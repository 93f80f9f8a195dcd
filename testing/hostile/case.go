package hostile

import (
	"errors"
	"fmt"

	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
)

// Want is what must come back: a response's type, or one of the values below.
type Want virtiogpu.Type

// What a response may be besides one type.
const (
	anError  Want = 0xffff_0001 + iota // any RESP_ERR_*
	anAnswer                           // anything, but it must come
)

func (w Want) matches(t virtiogpu.Type) bool {
	switch w {
	case anError:
		return t >= virtiogpu.RespErrUnspec && t <= virtiogpu.RespErrInvalidParameter
	case anAnswer:
		return t.IsOK() || anError.matches(t)
	}
	return t == virtiogpu.Type(w)
}

func (w Want) String() string {
	switch w {
	case anError:
		return "an error"
	case anAnswer:
		return "an answer"
	}
	return virtiogpu.Type(w).String()
}

// The answers that cases expect most.
const (
	fine        = Want(virtiogpu.RespOKNoData)
	bad         = Want(virtiogpu.RespErrInvalidParameter)
	noResource  = Want(virtiogpu.RespErrInvalidResourceID)
	noContext   = Want(virtiogpu.RespErrInvalidContextID)
	noScanout   = Want(virtiogpu.RespErrInvalidScanoutID)
	unspec      = Want(virtiogpu.RespErrUnspec)
	outOfMemory = Want(virtiogpu.RespErrOutOfMemory)
)

// End is how a VM stands after a case.
type End uint8

// How a VM stands.
const (
	Answers End = iota // the next good command is answered
	Reloads            // it is, after the guest has reset the device
	Dropped            // the broker closed its connection
	AnyEnd             // any of these
)

// On says which brokers a case is for.
type On uint8

// Which brokers.
const (
	Both On = iota
	OnGL
	On2D
)

// Case is one thing that a guest or its front-end does.
type Case struct {
	Group string
	Name  string
	On    On
	Mode  *vhostusertest.Profile // QEMU11B if nil
	End   End
	// Known says why the case may end or hang the broker all the same; the next
	// case gets another one.
	Known string
	// Leaks says why memory may be lost each time all the same.
	Leaks string
	// Do sends it and returns an error if something else came back than must.
	Do func(v *VM) error
}

func (c *Case) on(gl bool) bool { return c.On == Both || (c.On == OnGL) == gl }

// Command is a case that sends one command to a guest that has made the state's
// objects, and looks at the response: plain, then with a fence.
type Command struct {
	Name   string
	Cmd    []byte
	Want   Want
	Cursor bool // on the cursor queue
}

// state makes what the commands of a case find.
type state func(v *VM) error

// commands turns a table of commands into cases.
func commands(group string, on On, mode *vhostusertest.Profile, st state, table func(v *VM) ([]Command, error)) []Case {
	names, err := table(nil)
	if err != nil {
		panic(err) // without a VM a table makes nothing that fails
	}
	out := make([]Case, len(names))
	for i, n := range names {
		out[i] = Case{Group: group, Name: n.Name, On: on, Mode: mode, Do: func(v *VM) error {
			if err := st(v); err != nil {
				return fmt.Errorf("state: %w", err)
			}
			list, err := table(v)
			if err != nil {
				return err
			}
			return list[i].send(v)
		}}
	}
	return out
}

const someFence = 0xfedc_ba98_0000_0001

func (c *Command) send(v *VM) error {
	q := v.Ctrl
	if c.Cursor {
		q = v.Cursor
	}
	for _, fence := range []bool{false, true} {
		cmd := c.Cmd
		if fence {
			if len(cmd) < virtiogpu.SizeCtrlHdr {
				return nil
			}
			cmd = withFlags(cmd, virtiogpu.FlagFence, someFence, 0)
		}
		typ, resp, err := v.DoOn(q, cmd)
		if err != nil {
			return err
		}
		// The first may have taken an id: the second is refused for that.
		if !c.Want.matches(typ) && !(fence && c.Want == fine && anError.matches(typ)) {
			return fmt.Errorf("answered with %v, want %v", typ, c.Want)
		}
		var h virtiogpu.CtrlHdr
		if err := h.Decode(resp); err != nil {
			return err
		}
		if fence && h.FenceID != someFence {
			return fmt.Errorf("fence %#x came back as %#x", uint64(someFence), h.FenceID)
		}
	}
	return nil
}

// Cases lists every case.
func Cases() []Case {
	var out []Case
	for _, part := range []func() []Case{
		commandCases, contextCases, blobCases, fenceCases, streamCases, shaderCases, messageCases, ringCases, lifeCases, raceCases, limitCases,
	} {
		out = append(out, part()...)
	}
	return out
}

// errLeak says that a case left descriptors behind.
var errLeak = errors.New("descriptors leaked")
