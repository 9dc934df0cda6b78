/* What of CUDA the kernels are written in, as C++: included before a kernel's source.
 *
 * Vectors are clang's own, so that a vector is loaded and stored by one access, as on a GPU.
 */
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))
#define CUDA_SHARED(section_) static __attribute__((section(section_)))

/* What stands for an instruction: its accesses are not the kernel's. */
#define INSTRUCTION static inline __attribute__((no_sanitize("thread"), unused))

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
#define VECTORS(type)                                                                                                       \
    typedef type type##2 __attribute__((ext_vector_type(2)));                                                               \
    typedef type type##4 __attribute__((ext_vector_type(4)));                                                               \
    INSTRUCTION type##2 make_##type##2(type x, type y) { return (type##2){x, y}; }                                          \
    INSTRUCTION type##4 make_##type##4(type x, type y, type z, type w) { return (type##4){x, y, z, w}; }
VECTORS(float)
VECTORS(int)
VECTORS(uint)
VECTORS(ushort)
VECTORS(short)
VECTORS(uchar)
VECTORS(char)
struct float3 { float x, y, z; };
INSTRUCTION float3 make_float3(float x, float y, float z) { return {x, y, z}; }

struct dim3 { uint x, y, z; };
extern "C" {
extern struct CudaIndices { dim3 thread, block, threads, blocks; } cuda_indices;
extern void* cuda_dynamic_shared;
__attribute__((noduplicate)) void cuda_block_barrier(void);
__attribute__((noduplicate)) const void* cuda_warp_exchange(const void* mine, size_t size);
void cuda_read(const void* address, size_t size);
void cuda_fault(const char* message);
}
#define threadIdx cuda_indices.thread
#define blockIdx cuda_indices.block
#define blockDim cuda_indices.threads
#define gridDim cuda_indices.blocks
#define warpSize 32
#define __syncthreads cuda_block_barrier

INSTRUCTION uint cuda_lane() {
    return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
}
INSTRUCTION void __syncwarp(uint = 0xffffffffu) { int nothing = 0; cuda_warp_exchange(&nothing, sizeof nothing); }
INSTRUCTION void __threadfence() {}
INSTRUCTION void __threadfence_block() {}

template <class T> static inline __attribute__((always_inline)) T __ldg(const T* p) { return *p; }
template <class T> static inline __attribute__((always_inline)) T __ldcg(const T* p) { return *p; }
template <class T> static inline __attribute__((always_inline)) T __ldcs(const T* p) { return *p; }
template <class T> static inline __attribute__((always_inline)) void __stcs(T* p, T value) { *p = value; }
template <class T> static inline __attribute__((always_inline)) void __stcg(T* p, T value) { *p = value; }

INSTRUCTION int max(int a, int b) { return a < b ? b : a; }
INSTRUCTION int min(int a, int b) { return b < a ? b : a; }
INSTRUCTION uint max(uint a, uint b) { return a < b ? b : a; }
INSTRUCTION uint min(uint a, uint b) { return b < a ? b : a; }
INSTRUCTION int64_t max(int64_t a, int64_t b) { return a < b ? b : a; }
INSTRUCTION int64_t min(int64_t a, int64_t b) { return b < a ? b : a; }
INSTRUCTION float max(float a, float b) { return fmaxf(a, b); }
INSTRUCTION float min(float a, float b) { return fminf(a, b); }
INSTRUCTION float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
INSTRUCTION int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
INSTRUCTION uint __float_as_uint(float x) { return __builtin_bit_cast(uint, x); }
INSTRUCTION float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
INSTRUCTION float __uint_as_float(uint x) { return __builtin_bit_cast(float, x); }

/* Shuffles: every lane sees what all lanes of its warp brought. */
template <class T> INSTRUCTION T cuda_shuffled(T value, int from) {
    T all[32];
    memcpy(all, cuda_warp_exchange(&value, sizeof value), sizeof all);
    return all[from];
}
INSTRUCTION int cuda_inside(int from, int width) {
    int lane = cuda_lane();
    return from / width == lane / width && from >= 0 ? from : lane;
}
template <class T> INSTRUCTION T __shfl_sync(uint, T value, int from, int width = 32) {
    return cuda_shuffled(value, (int)cuda_lane() / width * width + from % width);
}
template <class T> INSTRUCTION T __shfl_up_sync(uint, T value, uint delta, int width = 32) {
    return cuda_shuffled(value, cuda_inside((int)cuda_lane() - (int)delta, width));
}
template <class T> INSTRUCTION T __shfl_down_sync(uint, T value, uint delta, int width = 32) {
    return cuda_shuffled(value, cuda_inside((int)(cuda_lane() + delta), width));
}
template <class T> INSTRUCTION T __shfl_xor_sync(uint, T value, int mask, int width = 32) {
    return cuda_shuffled(value, cuda_inside((int)cuda_lane() ^ mask, width));
}

/* Halves. */
typedef _Float16 half;
typedef half __half;
typedef half half2 __attribute__((ext_vector_type(2)));
typedef half2 __half2;
INSTRUCTION half __float2half(float x) { return (half)x; }
INSTRUCTION half __float2half_rn(float x) { return (half)x; }
INSTRUCTION float __half2float(half x) { return (float)x; }
INSTRUCTION half2 make_half2(half x, half y) { return (half2){x, y}; }
INSTRUCTION half2 __halves2half2(half x, half y) { return (half2){x, y}; }
INSTRUCTION half2 __float2half2_rn(float x) { return (half2){(half)x, (half)x}; }
INSTRUCTION half2 __floats2half2_rn(float x, float y) { return (half2){(half)x, (half)y}; }
INSTRUCTION float2 __half22float2(half2 x) { return (float2){(float)x.x, (float)x.y}; }
INSTRUCTION half2 __low2half2(half2 x) { return (half2){x.x, x.x}; }
INSTRUCTION half2 __high2half2(half2 x) { return (half2){x.y, x.y}; }
INSTRUCTION float __low2float(half2 x) { return (float)x.x; }
INSTRUCTION float __high2float(half2 x) { return (float)x.y; }
/* A float holds the product of two halves. What their sum with a third loses goes into its last bit, lest it be rounded twice. */
/* Called, not copied to each of its many places: compilers are faster so. */
__attribute__((noinline, no_sanitize("thread"))) static half cuda_hfma(half a, half b, half c) {
    const float product = (float)a * (float)b, addend = (float)c;
    const float sum = product + addend, part = sum - product;
    const float lost = (product - (sum - part)) + (addend - part);
    const uint bits = __builtin_bit_cast(uint, sum);
    if (lost == 0 || bits % 2 || lost != lost) return (half)sum;
    return (half)__builtin_bit_cast(float, (lost > 0) == (sum > 0) ? bits + 1 : bits - 1);
}
INSTRUCTION half2 __hfma2(half2 a, half2 b, half2 c) { return (half2){cuda_hfma(a.x, b.x, c.x), cuda_hfma(a.y, b.y, c.y)}; }
INSTRUCTION bool __hgt(half a, half b) { return a > b; }
INSTRUCTION bool __hlt(half a, half b) { return a < b; }
INSTRUCTION half2 __hadd2(half2 a, half2 b) { return a + b; }
INSTRUCTION half2 __hmul2(half2 a, half2 b) { return a * b; }

/* Instructions that kernels call through `asm`, under their PTX names; operands are in PTX's order. */
INSTRUCTION half2 cuda_halves(uint x) { return __builtin_bit_cast(half2, x); }
INSTRUCTION uint cuda_word(half2 x) { return __builtin_bit_cast(uint, x); }
INSTRUCTION void ptx_fma_rn_f16x2(uint& d, uint a, uint b, uint c) {
    d = cuda_word(__hfma2(cuda_halves(a), cuda_halves(b), cuda_halves(c)));
}
INSTRUCTION void ptx_add_rn_f16x2(uint& d, uint a, uint b) { d = cuda_word(cuda_halves(a) + cuda_halves(b)); }
INSTRUCTION void ptx_add_f16x2(uint& d, uint a, uint b) { d = cuda_word(cuda_halves(a) + cuda_halves(b)); }
INSTRUCTION void ptx_mul_rn_f16x2(uint& d, uint a, uint b) { d = cuda_word(cuda_halves(a) * cuda_halves(b)); }
INSTRUCTION void ptx_cvt_rn_f16x2_f32(uint& d, float high, float low) { d = cuda_word((half2){(half)low, (half)high}); }

/* A warp's matrices by the fragment tables of PTX: lane 4 g + t has rows g and g + 8 of A and of the sums, and column g of B. */
struct CudaFragments { uint a[4], b[2]; float c[4]; };
INSTRUCTION half cuda_fragment_half(const uint* registers, int i) { return cuda_halves(registers[i / 2])[i % 2]; }
INSTRUCTION void cuda_mma(int depth, float* d, const CudaFragments& mine) {
    CudaFragments all[32];
    memcpy(all, cuda_warp_exchange(&mine, sizeof mine), sizeof all);
    int lane = cuda_lane(), group = lane / 4, in_group = lane % 4;
    for (int i = 0; i < 4; ++i) {
        int row = group + i / 2 * 8, column = in_group * 2 + i % 2;
        double sum = mine.c[i];
        for (int k = 0; k < depth; ++k) {
            int place = k % 8, upper = k / 8;  /* columns 8 to 15 of A are in its last two registers, rows of B in its last */
            half a = cuda_fragment_half(all[row % 8 * 4 + place / 2].a, upper * 4 + row / 8 * 2 + place % 2);
            half b = cuda_fragment_half(all[column * 4 + place / 2].b, upper * 2 + place % 2);
            sum += (double)a * (double)b;
        }
        d[i] = (float)sum;
    }
}
INSTRUCTION void ptx_mma_sync_aligned_m16n8k16_row_col_f32_f16_f16_f32(
    float& d0, float& d1, float& d2, float& d3, uint a0, uint a1, uint a2, uint a3, uint b0, uint b1,
    float c0, float c1, float c2, float c3) {
    float d[4];
    cuda_mma(16, d, {{a0, a1, a2, a3}, {b0, b1}, {c0, c1, c2, c3}});
    d0 = d[0], d1 = d[1], d2 = d[2], d3 = d[3];
}
INSTRUCTION void ptx_mma_sync_aligned_m16n8k8_row_col_f32_f16_f16_f32(
    float& d0, float& d1, float& d2, float& d3, uint a0, uint a1, uint b0, float c0, float c1, float c2, float c3) {
    float d[4];
    cuda_mma(8, d, {{a0, a1, 0, 0}, {b0, 0}, {c0, c1, c2, c3}});
    d0 = d[0], d1 = d[1], d2 = d[2], d3 = d[3];
}

/* Shared addresses of `asm` are 32 bits: offsets from the block's memory. */
extern "C" char* cuda_shared_base(void);
INSTRUCTION size_t __cvta_generic_to_shared(const void* p) { return (const char*)p - cuda_shared_base(); }
/* Lanes 8 m to 8 m + 7 bring the addresses of the rows of matrix m; each lane gets two neighbours of a row, or of a column. */
INSTRUCTION void cuda_ldmatrix(uint* d, int count, uint address, bool transposed) {
    uint rows[32];
    if ((int)cuda_lane() < count * 8) cuda_read(cuda_shared_base() + address, 16);
    memcpy(rows, cuda_warp_exchange(&address, sizeof address), sizeof rows);
    int lane = cuda_lane();
    for (int m = 0; m < count; ++m) {
        half2 two;
        for (int i = 0; i < 2; ++i) {
            int row = transposed ? lane % 4 * 2 + i : lane / 4, column = transposed ? lane / 4 : lane % 4 * 2 + i;
            half value;
            memcpy(&value, cuda_shared_base() + rows[m * 8 + row] + column * 2, 2);
            two[i] = value;
        }
        d[m] = cuda_word(two);
    }
    __syncwarp();
}
#define LDMATRIX(suffix, transposed)                                                                                        \
    INSTRUCTION void ptx_ldmatrix_sync_aligned_m8n8_x1##suffix(uint& a, uint address) {                                     \
        cuda_ldmatrix(&a, 1, address, transposed);                                                                          \
    }                                                                                                                       \
    INSTRUCTION void ptx_ldmatrix_sync_aligned_m8n8_x2##suffix(uint& a, uint& b, uint address) {                            \
        uint d[2];                                                                                                          \
        cuda_ldmatrix(d, 2, address, transposed);                                                                           \
        a = d[0], b = d[1];                                                                                                 \
    }                                                                                                                       \
    INSTRUCTION void ptx_ldmatrix_sync_aligned_m8n8_x4##suffix(uint& a, uint& b, uint& c, uint& e, uint address) {          \
        uint d[4];                                                                                                          \
        cuda_ldmatrix(d, 4, address, transposed);                                                                           \
        a = d[0], b = d[1], c = d[2], e = d[3];                                                                             \
    }
LDMATRIX(_shared_b16, false)
LDMATRIX(_trans_shared_b16, true)
