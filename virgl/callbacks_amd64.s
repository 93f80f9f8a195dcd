#include "textflag.h"

// void write_fence(void *cookie, uint32_t fence), System V calling convention:
// cookie in DI, fence in SI. It runs on the C stack and touches nothing of Go's.
TEXT write_fence<>(SB), NOSPLIT|NOFRAME, $0-0
	MOVL	SI, 0(DI)
	RET

GLOBL	·writeFenceAddr(SB), RODATA|NOPTR, $8
DATA	·writeFenceAddr(SB)/8, $write_fence<>(SB)
