#include "textflag.h"

// void write_fence(void *cookie, uint32_t fence), AAPCS64: cookie in R0, fence in
// R1. It runs on the C stack and touches nothing of Go's.
TEXT write_fence<>(SB), NOSPLIT|NOFRAME, $0-0
	MOVW	R1, (R0)
	RET

GLOBL	·writeFenceAddr(SB), RODATA|NOPTR, $8
DATA	·writeFenceAddr(SB)/8, $write_fence<>(SB)
