package link

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestSpecification compares the numbers of docs/link.md with the code's.
func TestSpecification(t *testing.T) {
	b, err := os.ReadFile("../../docs/link.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	rows := map[string]bool{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "|") {
			cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			for n := 1; n <= len(cells); n++ {
				rows[strings.Join(cells[:n], "|")] = true
			}
		}
	}
	want := func(format string, args ...any) {
		t.Helper()
		if row := fmt.Sprintf(format, args...); !rows[row] {
			t.Errorf("no row that begins with %s", row)
		}
	}
	from := map[Role]string{Guest: "G", Host: "H", Guest | Host: "G, H"}
	for typ := TypeHello; typ < typeEnd; typ++ {
		r := rules[typ]
		want("%d|%s|%s|%d|%d", typ, r.name, from[r.from], r.min, r.max)
	}
	for name, v := range map[string]int{
		"MaxPayload": MaxPayload, "MaxItems": MaxItems, "MaxBytes": MaxBytes, "MaxRaw": MaxRaw, "MaxDim": MaxDim,
		"MaxPixelBytes": MaxPixelBytes, "MaxPipes": MaxPipes, "Window": Window, "MaxCredit": MaxCredit,
		"MaxToken": MaxToken, "MaxName": MaxName, "MaxError": MaxError, "Version": Version,
		"FlagCompressed": int(FlagCompressed), "FlagImportResources": int(FlagImportResources), "FlagGPUResources": int(FlagGPUResources),
		"EncodingRaw": int(EncodingRaw), "EncodingS2": int(EncodingS2), "EncodingSolid": int(EncodingSolid), "EndOfData": int(EndOfData), "NoReader": int(NoReader),
	} {
		want("%s|%d", name, v)
	}
	for kind := ItemResource; kind < itemEnd; kind++ {
		want("%d|%s", kind, kind)
	}
	word := control{kind: controlHello}.append(nil)
	for _, s := range []string{
		fmt.Sprintf("`% X` (0xC1, `%s`)", controlMark, controlMark[1:]),
		fmt.Sprintf("control word of %d bytes", len(word)),
		fmt.Sprintf("`%c` hello (G), `%c` answer (H), `%c` reset (H)", controlHello, controlAnswer, controlReset),
		fmt.Sprintf("magic `%s`", helloMagic),
		fmt.Sprintf("the broker: %d)", pings),
		fmt.Sprintf("An item is %d bytes", itemSize),
	} {
		if !strings.Contains(text, s) {
			t.Errorf("%q is not said", s)
		}
	}
}
