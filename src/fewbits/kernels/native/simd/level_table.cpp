// The kernels of one level: compiled once a level.
#include "../dispatch.h"
#include "../portable/level.h"
#include "simd.h"

#define FB_TABLE FB_FN(kernels)

extern "C" const fb::Kernels FB_TABLE = {
    FB_FN(conv),      FB_FN(matmul),     FB_FN(pair),       FB_LOOKUP,       FB_POOLED,     FB_FN(mean),   FB_FN(softmax),
    FB_FN(norm),      FB_FN(quantize),   FB_FN(dequantize), FB_FN(move),     FB_FN(rows),  FB_FN(threshold),
    FB_LINES,         FB_FN(covered),    FB_BINARY_SUMS,    FB_SPREAD,     FB_FEW_BITS,     FB_FN(range),
    FB_PRODUCT,       FB_DEPTHWISE,      FB_WINOGRAD_IN,  FB_WINOGRAD_OUT, FB_PAIRS,          FB_CODE_OFFSET,
    FB_TILES};
