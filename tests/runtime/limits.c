// Multiply-accumulates of a core out of its registers, where memory costs nothing: the limits that
// layers are held against. Each function returns how many its `n` rounds are.
#include "kernel.c"
#define SUMS 8
// The compiler may think that the value has changed, and that it is used.
#ifdef __aarch64__
#define USE(v) __asm__ volatile("" : "+w"(v))
#else
#define USE(v) __asm__ volatile("" : "+v"(v))
#endif
#define ALL(k) _Pragma("GCC unroll 8") for (int k = 0; k < SUMS; k++)

double look_ups(long n) {
  V sum[SUMS], row[2], index[4];
  ALL(k) sum[k] = ZERO();
  for (int i = 0; i < 2; i++) row[i] = LOAD_ROW(table + i * VL);
  for (int i = 0; i < 4; i++) index[i] = LOAD(table + i * VL);
  for (long i = 0; i < n; i++) {
    USE(row[0]);
    USE(row[1]);
    ALL(k) sum[k] = ADD8(sum[k], SHUFFLE(row[k / 4], index[k % 4]));
  }
  ALL(k) USE(sum[k]);
  return (double)n * SUMS * VL * CHANNELS;
}

double floats(long n) {
  F sum[SUMS], x = F_ALL(0.5f), w = F_ALL(0.25f);
  ALL(k) sum[k] = F_ALL((float)k);
  for (long i = 0; i < n; i++) {
    USE(x);
    ALL(k) sum[k] = F_FMA(x, w, sum[k]);
  }
  ALL(k) USE(sum[k]);
  return (double)n * SUMS * F_LANES;
}

double bytes(long n) {
#if VL == 64 && defined(__AVX512VNNI__)
#define STEP(s, x, w) _mm512_dpbusd_epi32(s, x, w)
#elif VL == 32
#define STEP(s, x, w) \
  _mm256_add_epi32(s, _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1)))
#endif
#ifdef STEP
  V sum[SUMS], x[2], w = LOAD(table);
  ALL(k) sum[k] = ZERO();
  for (int i = 0; i < 2; i++) x[i] = LOAD(table + i * VL);
  for (long i = 0; i < n; i++) {
    USE(w);
    ALL(k) {
      V at = x[k % 2];
      USE(at);
      sum[k] = STEP(sum[k], at, w);
    }
  }
  ALL(k) USE(sum[k]);
  return (double)n * SUMS * VL;
#else
  return 0 * (double)n;
#endif
}
