package dmabuf

import (
	"fmt"
	"strconv"
	"strings"
)

// vendors are the modifier vendor numbers of drm_fourcc.h.
var vendors = map[uint8]string{
	0: "NONE", 1: "INTEL", 2: "AMD", 3: "NVIDIA", 4: "SAMSUNG", 5: "QCOM", 6: "VIVANTE",
	7: "BROADCOM", 8: "ARM", 9: "ALLWINNER", 10: "AMLOGIC", 11: "MTK", 12: "APPLE",
}

// intelLayouts are the layouts of vendor INTEL by number, as drm_fourcc.h lists them.
var intelLayouts = map[uint64]string{
	1: "X_TILED", 2: "Y_TILED", 3: "Yf_TILED", 4: "Y_TILED_CCS", 5: "Yf_TILED_CCS",
	6: "Y_TILED_GEN12_RC_CCS", 7: "Y_TILED_GEN12_MC_CCS", 8: "Y_TILED_GEN12_RC_CCS_CC",
	9: "4_TILED", 10: "4_TILED_DG2_RC_CCS", 11: "4_TILED_DG2_MC_CCS", 12: "4_TILED_DG2_RC_CCS_CC",
	13: "4_TILED_MTL_RC_CCS", 14: "4_TILED_MTL_MC_CCS", 15: "4_TILED_MTL_RC_CCS_CC",
	16: "4_TILED_LNL_CCS", 17: "4_TILED_BMG_CCS",
}

// Vendor returns the vendor number, the top byte.
func (m Modifier) Vendor() uint8 { return uint8(m >> 56) }

// String names the modifier: LINEAR, INVALID, INTEL(Y_TILED), AMD(0x…).
func (m Modifier) String() string {
	switch m {
	case ModLinear:
		return "LINEAR"
	case ModInvalid:
		return "INVALID"
	}
	layout := uint64(m) & (1<<56 - 1)
	name, ok := vendors[m.Vendor()]
	if !ok {
		return fmt.Sprintf("vendor %d(%#x)", m.Vendor(), layout)
	}
	if l, ok := intelLayouts[layout]; ok && name == "INTEL" {
		return "INTEL(" + l + ")"
	}
	return fmt.Sprintf("%s(%#x)", name, layout)
}

// ParseModifier reads what String writes, and plain numbers such as
// 0x100000000000001.
func ParseModifier(s string) (Modifier, error) {
	switch strings.ToUpper(s) {
	case "LINEAR":
		return ModLinear, nil
	case "INVALID":
		return ModInvalid, nil
	}
	if n, err := strconv.ParseUint(s, 0, 64); err == nil {
		return Modifier(n), nil
	}
	bad := fmt.Errorf("%w: modifier %q: want LINEAR, INVALID, a number or VENDOR(LAYOUT)", ErrInvalid, s)
	name, layout, ok := strings.Cut(s, "(")
	layout, closed := strings.CutSuffix(layout, ")")
	if !ok || !closed {
		return 0, bad
	}
	for id, v := range vendors {
		if v != name {
			continue
		}
		n, ok := parseLayout(name, layout)
		if !ok {
			return 0, bad
		}
		return Modifier(uint64(id)<<56 | n), nil
	}
	return 0, bad
}

func parseLayout(vendor, layout string) (uint64, bool) {
	if vendor == "INTEL" {
		for n, name := range intelLayouts {
			if name == layout {
				return n, true
			}
		}
	}
	n, err := strconv.ParseUint(layout, 0, 56)
	return n, err == nil
}
