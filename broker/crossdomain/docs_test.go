package crossdomain

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// tables reads the document's tables: rows by the first cell of their table's head.
func tables(t *testing.T) map[string][][]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/cross-domain.md")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][][]string{}
	head := ""
	for _, line := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(line, "|") {
			head = ""
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case head == "":
			head = cells[0] + "," + cells[1]
		case !strings.HasPrefix(cells[0], "---"):
			out[head] = append(out[head], cells)
		}
	}
	return out
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Errorf("%q is no number", s)
	}
	return n
}

// TestDocumented: the numbers of docs/cross-domain.md are those of the code.
func TestDocumented(t *testing.T) {
	doc := tables(t)
	row := func(head, first string) []string {
		t.Helper()
		for _, r := range doc[head] {
			if r[0] == first {
				return r
			}
		}
		t.Errorf("no row %q in the table %q", first, head)
		return make([]string, 8)
	}
	fixed := map[Cmd]int{
		CmdInit: SizeInit, CmdGetImageRequirements: SizeImageQuery, CmdPoll: SizePoll, CmdSend: SizeSendReceive,
		CmdReceive: SizeSendReceive, CmdRead: SizeReadWrite, CmdWrite: SizeReadWrite,
	}
	cmds := doc["cmd,name"]
	if len(cmds) != len(cmdNames) {
		t.Errorf("%d commands are documented, there are %d", len(cmds), len(cmdNames))
	}
	for _, r := range cmds {
		c := Cmd(number(t, r[0]))
		if r[1] != c.String() || number(t, r[2]) != fixed[c] {
			t.Errorf("%v, want %v with %d bytes", r, c, fixed[c])
		}
	}
	sizes := map[int]bool{SizeInitOld: true, SizeInit: true, SizeInitLibkrun: true, SizeInitUUID: true}
	for _, r := range doc["size,fields"] {
		n := number(t, r[0])
		if _, err := decodeInit(make([]byte, n)); err != nil || !sizes[n] {
			t.Errorf("INIT of %d bytes: %v", n, err)
		}
		delete(sizes, n)
	}
	if len(sizes) > 0 {
		t.Errorf("INIT of %v bytes is not documented", sizes)
	}
	for _, slots := range []int{MaxIDs, MaxIDsOld} {
		r := row("N,arrays at", strconv.Itoa(slots))
		at := []string{"16", strconv.Itoa(16 + 4*slots), strconv.Itoa(16 + 8*slots)}
		if r[1] != strings.Join(at, ", ") || number(t, r[2]) != sizeOf(slots) {
			t.Errorf("%v, want %v and %d", r, at, sizeOf(slots))
		}
	}
	if sizeOf(MaxIDs) != SizeSendReceive || sizeOf(MaxIDsOld) != SizeSendReceive4 {
		t.Error("the sizes contradict each other")
	}
	for typ, name := range map[IDType]string{IDBlob: "blob", IDReadPipe: "read pipe", IDWritePipe: "write pipe"} {
		if r := row("type,name", strconv.Itoa(int(typ))); r[1] != name {
			t.Errorf("%v, want %s", r, name)
		}
	}
	if len(doc["type,name"]) != 3 {
		t.Error("more types are documented than there are")
	}
	for _, typ := range []ChannelType{ChannelNone, ChannelWayland, ChannelStream} {
		row("channel type,", strconv.Itoa(int(typ)))
	}
	for first, want := range map[string][]int{
		"identifiers in a message": {MaxIDs}, "pipes open, each way": {maxPipes}, "received blobs not made yet": {maxBlobs},
		"image templates": {maxTemplates}, "polls that wait": {maxPolls}, "ring, least and most": {minRing, maxRing},
	} {
		got := strings.Split(row("what,limit", first)[1], " and ")
		for i, n := range want {
			if i >= len(got) || number(t, got[i]) != n {
				t.Errorf("%s: %v, want %v", first, got, want)
			}
		}
	}
	// Fields lie where the tables say.
	end := 0
	for _, r := range doc["field,offset"] {
		at, size := number(t, r[1]), number(t, r[2])
		if at != 0 && at != end {
			t.Errorf("%s is at %d, the field before ends at %d", r[0], at, end)
		}
		end = at + size
		switch r[0] {
		case "physical_device_idx":
			if end != SizeImageReply {
				t.Errorf("the reply has %d bytes, want %d", end, SizeImageReply)
			}
		case "supports_external_gpu_memory":
			if end != SizeCapset {
				t.Errorf("the set has %d bytes, want %d", end, SizeCapset)
			}
		case "pad":
			if end != sizeHeader {
				t.Errorf("the header has %d bytes, want %d", end, sizeHeader)
			}
		}
	}
	text, err := os.ReadFile("../../docs/cross-domain.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		strconv.Itoa(softBytes>>10) + " KiB or " + strconv.Itoa(softMessages) + " messages",
		strconv.Itoa(softPipeBytes>>20) + " MiB for its pipes",
		"at " + strconv.Itoa(hardBytes>>20) + " MiB or " + strconv.Itoa(hardMessages),
		"a pipe at " + strconv.Itoa(hardPipeBytes>>20) + " MiB", "at most 65535 - 352", "0x80000001",
	} {
		if !strings.Contains(strings.Join(strings.Fields(string(text)), " "), want) {
			t.Errorf("the document does not say %q", want)
		}
	}
}
