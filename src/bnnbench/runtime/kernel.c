// 1-bit convolution by table look-up; kernel_tile.h is its inner loop, kernel_float.h the float
// convolution in front of a packed network, kernel_mean.h mean magnitudes of windows.
//
// A code is a byte that stands for the signs of CHANNELS neighbouring channels of one pixel. It
// names a row of a table whose column w is the number of channels in which a weight code w differs
// from it, so that one byte shuffle, with the weight codes of VL outputs as index, counts VL *
// CHANNELS products, and one byte addition sums them up. That is half the instructions of xor and
// popcount. A pixel outside the map has codes whose rows say "half of the channels differ": it adds
// exactly 0 to channels - 2 * differing, for every weight, and borders need no case of their own.
//
// Maps of codes are NHWC with their border around them, one run of `codes` bytes a pixel and group.
// All sizes are checked by the caller. Every product and sum of floats is rounded by itself
// (-ffp-contract=off), so that the same arithmetic in torch gives the same bits.
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

// What differs between instruction sets: a vector V of VL bytes; SHUFFLE(row, index) looks VL
// indices up in a row of a table; EVEN and ODD widen bytes to 16 bits; PIXELS1 and
// PIXELS2 are the pixels of a tile of one and of two vectors, as many as there are registers for
// (7 divides the maps of 224-pixel networks).
#if defined(__AVX512VBMI__)
#include <immintrin.h>
#define NAME "avx512vbmi"
#define VL 64
#define CHANNELS 6  // vpermb looks up in 64 bytes
#define PIXELS1 7
#define PIXELS2 7
#define COLUMNS 64
#define SHUFFLE(row, index) _mm512_permutexvar_epi8(index, row)
#elif defined(__AVX512BW__)
#include <immintrin.h>
#define NAME "avx512"
#define VL 64
#define CHANNELS 4
#define PIXELS1 7
#define PIXELS2 7
#define COLUMNS 16
#define SHUFFLE(row, index) _mm512_shuffle_epi8(row, index)
#elif defined(__AVX2__)
#include <immintrin.h>
#define NAME "avx2"
#define VL 32
#define CHANNELS 4
#define PIXELS1 8
#define PIXELS2 5
#define COLUMNS 16
#define LOAD_ROW(p) _mm256_load_si256((const __m256i *)(p))
#define SHUFFLE(row, index) _mm256_shuffle_epi8(row, index)
typedef __m256i V;
#define ZERO() _mm256_setzero_si256()
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define STORE(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define ADD8(a, b) _mm256_add_epi8(a, b)
#define ADD16(a, b) _mm256_add_epi16(a, b)
#define EVEN(a) _mm256_and_si256(a, _mm256_set1_epi16(255))
#define ODD(a) _mm256_srli_epi16(a, 8)
#elif defined(__aarch64__)
#include <arm_neon.h>
#define NAME "neon"
#define VL 16
#define CHANNELS 4
#define PIXELS1 8
#define PIXELS2 8
#define COLUMNS 16
#define LOAD_ROW(p) vld1q_u8(p)
#define SHUFFLE(row, index) vqtbl1q_u8(row, index)
typedef uint8x16_t V;
#define U16(a) vreinterpretq_u16_u8(a)
#define ZERO() vdupq_n_u8(0)
#define LOAD(p) vld1q_u8((const uint8_t *)(p))
#define STORE(p, v) vst1q_u8((uint8_t *)(p), v)
#define ADD8(a, b) vaddq_u8(a, b)
#define ADD16(a, b) vreinterpretq_u8_u16(vaddq_u16(U16(a), U16(b)))
#define EVEN(a) vandq_u8(a, vreinterpretq_u8_u16(vdupq_n_u16(255)))
#define ODD(a) vreinterpretq_u8_u16(vshrq_n_u16(U16(a), 8))
#else
#error "no byte shuffle: this machine takes the float path"
#endif
#if VL == 64
typedef __m512i V;
#define ZERO() _mm512_setzero_si512()
#define LOAD_ROW(p) _mm512_load_si512(p)
#define LOAD(p) _mm512_loadu_si512(p)
#define STORE(p, v) _mm512_storeu_si512(p, v)
#define ADD8(a, b) _mm512_add_epi8(a, b)
#define ADD16(a, b) _mm512_add_epi16(a, b)
#define EVEN(a) _mm512_and_si512(a, _mm512_set1_epi16(255))
#define ODD(a) _mm512_srli_epi16(a, 8)
#endif

#define STEPS (255 / CHANNELS)  // codes whose counts a byte holds
#define LANES 16                // floats that loops over outputs go by: tensors of channels are padded
#define MOST_PIXELS 8           // of a tile
#define CHUNK_FLOATS 32768      // outputs a thread makes before it packs them: they are still near
#define CHUNK_PIXELS 2048       // as many pixels of them at most
#define SMALL_WORK 400000       // table look-ups that are not worth waking a thread for
#define INLINE static inline __attribute__((always_inline))
// A weight vector stays in its register instead of being loaded again for each pixel.
#ifdef __aarch64__
#define KEEP(v) __asm__("" : "+w"(v))
#else
#define KEEP(v) __asm__("" : "+v"(v))
#endif

// How the map of one layer's input becomes codes. Tensors of channels are in order of the groups.
typedef struct {
  const float *threshold;  // (groups * channels)
  const uint8_t *flip;     // (groups, codes up to a multiple of 8) xor of the codes
  const uint8_t *border;   // (groups * codes) a pixel outside the map
  int32_t channels, codes; // of one group
  int32_t groups, ph, pw;  // border rows and columns on each side
} Encoder;

typedef struct {
  const float *restrict positive, *restrict negative, *restrict shift;  // NULL: nothing is done
  float low, high;
} Activation;

// A layer on maps of h x w pixels. Outputs are padded to a multiple of VL in each group
// (`padded`), and so are tensors of outputs.
typedef struct {
  const uint8_t *weights;  // (groups, blocks of two vectors or one, codes of the window, block)
  const int32_t *segment;  // (segments) where runs of codes start, relative to the window's corner
  const float *scale;      // (groups * padded) of the sums
  const float *window;     // likewise, of the window's sum; NULL: none
  const float *rows;       // (kinds, column_kinds, groups * padded) what is added
  const int32_t *row_kind, *column_kind;  // (oh), (ow)
  Activation before, after;
  const Encoder *next[2];  // NULL: none
  int32_t segments, length;  // runs of the window, codes in one
  int32_t codes, groups;     // codes of a pixel in a group
  int32_t height, width;     // of the map with its border
  int32_t sh, sw, oh, ow;    // strides and outputs
  int32_t out, padded;       // outputs of one group
  int32_t bits, column_kinds;  // products of one sum
} Layer;

// Rows fill a vector (a broadcast would cost more than the load), so that 16 columns are repeated.
// Codes are numbers of rows, times SHIFTED where that fits into a byte: it spares a shift, because
// addresses scale by 8. The number of bits set in a code of the border is half of its channels,
// like its row, which makes the sum of a window a count of bits.
#define ROWS (COLUMNS == 16 ? 18 : 68)
#define SHIFTED (COLUMNS == 16 ? VL / 8 : 1)
#define ROW(code) LOAD_ROW(table + (size_t)(code) * (VL / SHIFTED))
static uint8_t table[ROWS * VL] __attribute__((aligned(64)));

void initialise(void) {
  for (int row = 0; row < ROWS; row++)
    for (int i = 0; i < VL; i++)
      table[row * VL + i] = __builtin_popcount(row < COLUMNS ? row ^ (i % COLUMNS) : row);
}
const char *name(void) { return NAME; }
int vector_bytes(void) { return VL; }
int code_channels(void) { return CHANNELS; }
int code_factor(void) { return SHIFTED; }

// One bit a channel of up to 8 * CHANNELS: whether it reaches its threshold. `count` is a
// multiple of 4.
INLINE uint64_t reached(const float *v, const float *threshold, int count) {
  uint64_t bits = 0;
#if VL == 64
  for (int k = 0; k < count; k += 16) {
    __mmask16 in = count - k < 16 ? (1u << (count - k)) - 1 : 0xFFFF;
    __m512 x = _mm512_maskz_loadu_ps(in, v + k), t = _mm512_maskz_loadu_ps(in, threshold + k);
    bits |= (uint64_t)_mm512_mask_cmp_ps_mask(in, x, t, _CMP_GE_OQ) << k;
  }
#elif VL == 32
  int k = 0;
  for (; k + 8 <= count; k += 8) {
    __m256 ge = _mm256_cmp_ps(_mm256_loadu_ps(v + k), _mm256_loadu_ps(threshold + k), _CMP_GE_OQ);
    bits |= (uint64_t)_mm256_movemask_ps(ge) << k;
  }
  if (k < count)
    bits |= (uint64_t)_mm_movemask_ps(_mm_cmpge_ps(_mm_loadu_ps(v + k), _mm_loadu_ps(threshold + k))) << k;
#else
  const uint32x4_t bit = {1, 2, 4, 8};
  for (int k = 0; k < count; k += 4)
    bits |= (uint64_t)vaddvq_u32(vandq_u32(vcgeq_f32(vld1q_f32(v + k), vld1q_f32(threshold + k)), bit)) << k;
#endif
  return bits;
}

// The bits of 8 * CHANNELS channels as 8 codes, the first in the lowest byte.
INLINE uint64_t spread(uint64_t x) {
#if CHANNELS == 6
  return _pdep_u64(x, 0x3F3F3F3F3F3F3F3F);
#else
  x = (x | x << 16) & 0x0000FFFF0000FFFF;
  x = (x | x << 8) & 0x00FF00FF00FF00FF;
  x = (x | x << 4) & 0x0F0F0F0F0F0F0F0F;
  return x * SHIFTED;
#endif
}

// The codes of one pixel. Codes are written eight at a time; what that spoils behind the pixel is
// written afterwards, unless it is another thread's: fewer than eight bytes of this one's are left.
INLINE void encode_pixel(const Encoder *e, const float *v, uint8_t *out, int is_exact) {
  const float *threshold = e->threshold;
  const uint8_t *flips = e->flip;
  for (int g = 0; g < e->groups; g++, out += e->codes, flips += (e->codes + 7) / 8 * 8)
    for (int i = 0, left = e->channels; left > 0; i += 8, left -= 8 * CHANNELS) {
      int count = left < 8 * CHANNELS ? left : 8 * CHANNELS;
      uint64_t flip, codes = count == 8 * CHANNELS ? reached(v, threshold, 8 * CHANNELS) : reached(v, threshold, count);
      memcpy(&flip, flips + i, 8);
      codes = spread(codes) ^ flip;
      v += count;
      threshold += count;
      if (is_exact && e->codes - i < 8) memcpy(out + i, &codes, e->codes - i);
      else memcpy(out + i, &codes, 8);
    }
}

static uint8_t *fill(uint8_t *out, const uint8_t *pixel, size_t bytes, size_t count) {
  for (; count > 0; count--, out += bytes) memcpy(out, pixel, bytes);
  return out;
}

// Pixels first..last of flat maps (n, h, w) to their places in the bordered map. Whoever encodes a
// pixel at an edge writes the border beside it, so that each byte is written exactly once.
static void encode_pixels(const Encoder *e, const float *v, uint8_t *codes, long first, long last, int h, int w) {
  size_t bytes = (size_t)e->groups * e->codes, channels = (size_t)e->groups * e->channels;
  size_t row = (size_t)(w + 2 * e->pw), map = row * (h + 2 * e->ph);
  int x = (int)(first % w), y = (int)(first / w % h);
  uint8_t *top = codes + first / ((long)w * h) * map * bytes;
  uint8_t *out = top + ((y + e->ph) * row + x + e->pw) * bytes;
  for (long q = first; q < last; q++, v += channels) {
    if (x == 0) {
      if (y == 0) fill(top, e->border, bytes, e->ph * row);
      fill(out - e->pw * bytes, e->border, bytes, e->pw);
    }
    encode_pixel(e, v, out, (size_t)(last - 1 - q) * bytes < 8);
    out += bytes;
    if (++x == w) {
      x = 0;
      out = fill(out, e->border, bytes, e->pw);
      if (++y == h) {
        y = 0;
        top = fill(out, e->border, bytes, e->ph * row);
        out = top + e->ph * row * bytes;
      }
      out += e->pw * bytes;
    }
  }
}

// x (n, h, w, channels) to the codes of a layer.
void encode(const Encoder *e, const float *x, uint8_t *codes, int n, int h, int w, int threads) {
  long pixels = (long)n * h * w, channels = (long)e->groups * e->channels;
  if (pixels * channels < SMALL_WORK / 4) threads = 1;
  long each = (pixels + threads - 1) / threads;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static, 1)
  for (int t = 0; t < threads; t++) {
    long first = t * each, last = first + each < pixels ? first + each : pixels;
    if (first < last) encode_pixels(e, x + first * channels, codes, first, last, h, w);
  }
}

#define TILE tile1
#define VECTORS 1
#define PIXELS PIXELS1
#include "kernel_tile.h"
#undef TILE
#undef VECTORS
#undef PIXELS
#define TILE tile2
#define VECTORS 2
#define PIXELS PIXELS2
#include "kernel_tile.h"

// The sum of the codes in a window, each -1 or +1, and 0 outside the map. Runs are read eight codes
// at a time: buffers of codes end with eight bytes more.
static float window_sum(const Layer *l, const uint8_t *corner) {
  int set = 0, left = l->length % 8;
  uint64_t last = ((uint64_t)1 << 8 * left) - 1, codes;
  for (int s = 0; s < l->segments; s++) {
    const uint8_t *run = corner + l->segment[s], *end = run + l->length - left;
    for (; run < end; run += 8) {
      memcpy(&codes, run, 8);
      set += __builtin_popcountll(codes);
    }
    if (left) {
      memcpy(&codes, run, 8);
      set += __builtin_popcountll(codes & last);
    }
  }
  return (float)(2 * set - l->bits);
}

INLINE float activated(const Activation *a, int i, float v) {
  float above = a->positive[i] * v, below = a->negative[i] * v;
  v = (v >= 0 ? above : below) + a->shift[i];
  v = v < a->low ? a->low : v;
  return v > a->high ? a->high : v;
}

// Where the pixels of a tile are: their windows' corners and sums, what is added there, and by which
// factor the layer is multiplied.
typedef struct {
  const uint8_t *corner[MOST_PIXELS];
  const float *rows[MOST_PIXELS], *windows;
  float factor[MOST_PIXELS];
} Place;

// From counts to the layer's output: `pixels` times `outs`, of which the first is number `c` of the
// padded tensors; `step` floats lie between pixels of y and add. Loops go over LANES at a time.
INLINE void finish(const Layer *l, const Place *at, const uint16_t (*count)[2 * VL], const float *add, float *y, size_t step, int pixels, int c, int outs, int is_before, int is_added, int is_after) {
  const Activation before = l->before, after = l->after;
  const float bits = (float)l->bits;
  for (int p = 0; p < pixels; p++) {
    const uint16_t *restrict counted = count[p];
    const float *restrict scale = l->scale + c, *restrict row = at->rows[p];
    const float *restrict from = is_added ? add + p * step : NULL;
    float *restrict to = y + p * step;
    const float factor = at->factor[p];
    for (int j = 0; j < outs; j += LANES)
      for (int i = j; i < j + LANES; i++) {
        float half = (float)counted[i], v = scale[i] * (bits - (half + half)) + row[i];
        v *= factor;
        if (is_before) v = activated(&before, c + i, v);
        if (is_added) v += from[i];
        if (is_after) v = activated(&after, c + i, v);
        to[i] = v;
      }
  }
}

// Each combination is a loop of its own, without tests inside.
static void finish_tile(const Layer *l, const Place *at, const uint16_t (*count)[2 * VL], const float *add, float *y, size_t step, int pixels, int c, int outs) {
  switch ((l->before.positive ? 4 : 0) + (add ? 2 : 0) + (l->after.positive ? 1 : 0)) {
#define CASE(b, s, a) \
  case 4 * b + 2 * s + a: finish(l, at, count, add, y, step, pixels, c, outs, b, s, a); break
    CASE(0, 0, 0); CASE(0, 0, 1); CASE(0, 1, 0); CASE(0, 1, 1);
    CASE(1, 0, 0); CASE(1, 0, 1); CASE(1, 1, 0); CASE(1, 1, 1);
#undef CASE
  }
}

// Whether the outputs of a group are one block and there is a lane behind them. Its weights are 0:
// it counts what is set in the window.
INLINE int has_spare(const Layer *l) { return l->out < l->padded && l->padded <= 2 * VL; }

// A block of outputs, from number `first` of group g, at the pixels of a tile.
static void block(const Layer *l, Place *at, int pixels, int g, int first, const float *add, float *y) {
  uint16_t count[MOST_PIXELS][2 * VL] __attribute__((aligned(64)));
  float shifted[MOST_PIXELS][2 * VL], shortcut[MOST_PIXELS][2 * VL], made[MOST_PIXELS][2 * VL];
  int vectors = l->padded - first >= 2 * VL ? 2 : 1, outs = l->out - first;
  if (outs > vectors * VL) outs = vectors * VL;
  int c = g * l->padded + first;
  size_t all = (size_t)l->groups * l->out, group = (size_t)g * l->codes;
  const uint8_t *weights = l->weights + (size_t)l->segments * l->length * c;
  if (vectors == 2) tile2(l, at->corner, group, weights, count);
  else tile1(l, at->corner, group, weights, count);
  for (int p = 0; p < pixels; p++) at->rows[p] += c;
  if (l->window)
    for (int p = 0; p < pixels; p++) {
      const float *restrict window = l->window + c, *restrict row = at->rows[p];
      float sum = has_spare(l) ? (float)(2 * count[p][l->out] - l->bits) : at->windows[p];
      for (int j = 0; j < outs; j += LANES)
        for (int i = j; i < j + LANES; i++) shifted[p][i] = window[i] * sum + row[i];
      at->rows[p] = shifted[p];
    }
  const uint16_t (*counted)[2 * VL] = (const uint16_t (*)[2 * VL])count;
  if (outs % LANES == 0) {
    finish_tile(l, at, counted, add, y, all, pixels, c, outs);
  } else {  // loops would run into the next pixel
    if (add)
      for (int p = 0; p < pixels; p++) memcpy(shortcut[p], add + p * all, outs * sizeof(float));
    finish_tile(l, at, counted, add ? shortcut[0] : NULL, made[0], 2 * VL, pixels, c, outs);
    for (int p = 0; p < pixels; p++) memcpy(y + p * all, made[p], outs * sizeof(float));
  }
}

// A place in the flat (n, oh, ow) outputs.
typedef struct {
  const uint8_t *map, *corner;
  int x, y;
} Cursor;

static Cursor cursor_at(const Layer *l, const uint8_t *codes, long q) {
  size_t bytes = (size_t)l->groups * l->codes, row = l->width * bytes;
  Cursor at = {codes + q / ((long)l->ow * l->oh) * l->height * row, NULL, (int)(q % l->ow), (int)(q / l->ow % l->oh)};
  at.corner = at.map + (size_t)at.y * l->sh * row + (size_t)at.x * l->sw * bytes;
  return at;
}

// The next `pixels` places.
INLINE void advance(const Layer *l, Cursor *at, int pixels, Place *place) {
  size_t bytes = (size_t)l->groups * l->codes, row = l->width * bytes, all = (size_t)l->groups * l->padded;
  const float *rows = l->rows + (size_t)l->row_kind[at->y] * l->column_kinds * all;
  for (int p = 0; p < pixels; p++) {
    place->rows[p] = rows + l->column_kind[at->x] * all;
    place->corner[p] = at->corner;
    at->corner += l->sw * bytes;
    if (++at->x < l->ow) continue;
    at->x = 0;
    if (++at->y == l->oh) { at->y = 0; at->map += l->height * row; }
    at->corner = at->map + (size_t)at->y * l->sh * row;
    rows = l->rows + (size_t)l->row_kind[at->y] * l->column_kinds * all;
  }
  // A tile is always whole: it repeats a pixel that nobody reads.
  for (int p = pixels; p < MOST_PIXELS; p++) place->corner[p] = place->corner[pixels - 1];
}

// The sums of group g in the windows of pixels first..last.
static void window_sums(const Layer *l, const uint8_t *codes, int g, float *windows, long first, long last) {
  Cursor cursor = cursor_at(l, codes, first);
  for (long q = first; q < last; q += MOST_PIXELS) {
    int pixels = last - q < MOST_PIXELS ? (int)(last - q) : MOST_PIXELS;
    Place place;
    advance(l, &cursor, pixels, &place);
    for (int p = 0; p < pixels; p++) *windows++ = window_sum(l, place.corner[p] + (size_t)g * l->codes);
  }
}

INLINE int tile_pixels(const Layer *l) { return l->padded > VL ? PIXELS2 : PIXELS1; }

// Outputs of pixels first..last into y, which starts at the first of them.
static void chunk(const Layer *l, const uint8_t *codes, const float *factor, const float *add, float *y, long first, long last) {
  int tile = tile_pixels(l), step, all = l->groups * l->out;
  float windows[CHUNK_PIXELS + MOST_PIXELS];
  for (int g = 0; g < l->groups; g++) {
    if (l->window && !has_spare(l)) window_sums(l, codes, g, windows, first, last);
    for (int o = 0; o < l->padded; o += step) {
      step = l->padded - o >= 2 * VL ? 2 * VL : VL;
      Cursor cursor = cursor_at(l, codes, first);
      for (long q = first; q < last; q += tile) {
        int pixels = last - q < tile ? (int)(last - q) : tile;
        size_t at = (size_t)(q - first) * all + (size_t)g * l->out + o;
        Place place;
        advance(l, &cursor, pixels, &place);
        place.windows = windows + (q - first);
        for (int p = 0; p < pixels; p++) place.factor[p] = factor ? factor[q - first + p] : 1;
        block(l, &place, pixels, g, o, add ? add + at : NULL, y + at);
      }
    }
  }
}

// Outputs that a thread makes before it packs them, a multiple of any tile.
int chunk_pixels(const Layer *l) {
  int tile = tile_pixels(l), pixels = CHUNK_FLOATS / (l->groups * l->out);
  pixels = (pixels < CHUNK_PIXELS ? pixels : CHUNK_PIXELS) / tile * tile;
  return pixels > tile ? pixels : tile;
}

// The layer on n maps, times a factor (n, oh, ow) or NULL: y (n, oh, ow, out) and the codes of the next layers. Without `is_kept` y is
// room for one chunk a thread.
void convolve(const Layer *l, const uint8_t *codes, const float *factor, const float *add, float *y, int is_kept, uint8_t *next0, uint8_t *next1, int n, int threads) {
  long pixels = (long)n * l->oh * l->ow, all = (long)l->groups * l->out, size = chunk_pixels(l);
  if (pixels * l->segments * l->length * l->groups * l->padded / VL * 8 < SMALL_WORK) threads = 1;
  long each = ((pixels + threads - 1) / threads + tile_pixels(l) - 1) / tile_pixels(l) * tile_pixels(l);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static, 1)
  for (int t = 0; t < threads; t++) {
    long end = (t + 1) * each < pixels ? (t + 1) * each : pixels;
    for (long q = t * each; q < end; q += size) {
      long last = q + size < end ? q + size : end;
      float *to = y + (is_kept ? q : t * size) * all;
      chunk(l, codes, factor ? factor + q : NULL, add ? add + q * all : NULL, to, q, last);
      if (next0) encode_pixels(l->next[0], to, next0, q, last, l->oh, l->ow);
      if (next1) encode_pixels(l->next[1], to, next1, q, last, l->oh, l->ow);
    }
  }
}

#include "kernel_float.h"
#include "kernel_mean.h"
