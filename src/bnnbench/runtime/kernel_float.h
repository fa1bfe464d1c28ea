// The float convolution in front of a packed network, with what follows it: few input channels, so
// that a window's rows are short runs of the bordered NHWC map. An activation, a max pool and the
// codes of the next layers are made while rows are near. Sums are fused multiply-adds in one order,
// whatever the number of threads.
#if VL == 64
typedef __m512 F;
#define F_LANES 16
#define F_VECTORS 4  // a tile is F_PIXELS x F_VECTORS counters, and fills the registers
#define F_LOAD(p) _mm512_loadu_ps(p)
#define F_STORE(p, v) _mm512_storeu_ps(p, v)
#define F_ALL(x) _mm512_set1_ps(x)
#define F_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define F_ADD(a, b) _mm512_add_ps(a, b)
#define F_ABS(a) _mm512_abs_ps(a)
#elif VL == 32
typedef __m256 F;
#define F_LANES 8
#define F_VECTORS 2
#define F_LOAD(p) _mm256_loadu_ps(p)
#define F_STORE(p, v) _mm256_storeu_ps(p, v)
#define F_ALL(x) _mm256_set1_ps(x)
#define F_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define F_ADD(a, b) _mm256_add_ps(a, b)
#define F_ABS(a) _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a)
#else
typedef float32x4_t F;
#define F_LANES 4
#define F_VECTORS 4
#define F_LOAD(p) vld1q_f32(p)
#define F_STORE(p, v) vst1q_f32(p, v)
#define F_ALL(x) vdupq_n_f32(x)
#define F_FMA(a, b, c) vfmaq_f32(c, a, b)
#define F_ADD(a, b) vaddq_f32(a, b)
#define F_ABS(a) vabsq_f32(a)
#endif
#define F_PIXELS 6
#define F_BLOCK (F_LANES * F_VECTORS)

typedef struct {
  const float *weights;  // (blocks, kh, run, F_BLOCK)
  const float *shift;    // (padded) where sums start
  Activation after;
  const Encoder *next[2];     // NULL: none
  int32_t channels, kh, run;  // floats in a row of the window
  int32_t h, w, ph, pw;       // of the map, and its border
  int32_t sh, sw, oh, ow, out, padded;  // padded to a multiple of F_BLOCK
  int32_t pool, pool_stride, pool_padding, pooled_h, pooled_w;  // pool 1: none
} Stem;

int float_block(void) { return F_BLOCK; }

// Row y of the bordered map, (width, channels), from a map of any strides.
static void border_row(const Stem *l, const float *x, const int64_t *stride, float *to, int y) {
  int width = l->w + 2 * l->pw;
  memset(to, 0, (size_t)width * l->channels * sizeof(float));
  if (y < l->ph || y >= l->ph + l->h) return;
  x += (y - l->ph) * stride[2];
  to += l->pw * l->channels;
  for (int c = 0; c < l->channels; c++)
    for (int i = 0; i < l->w; i++) to[i * l->channels + c] = x[c * stride[1] + i * stride[3]];
}

// F_PIXELS outputs of one block, `step` floats of the map apart.
static void float_tile(const Stem *l, const float *corner, size_t row, size_t step, const float *w, const float *shift, float *to) {
  F sum[F_PIXELS][F_VECTORS];
#pragma GCC unroll 8
  for (int p = 0; p < F_PIXELS; p++)
#pragma GCC unroll 8
    for (int v = 0; v < F_VECTORS; v++) sum[p][v] = F_LOAD(shift + v * F_LANES);
  for (int i = 0; i < l->kh; i++, corner += row)
    for (int k = 0; k < l->run; k++, w += F_BLOCK) {
      F weight[F_VECTORS];
#pragma GCC unroll 8
      for (int v = 0; v < F_VECTORS; v++) weight[v] = F_LOAD(w + v * F_LANES);
#pragma GCC unroll 8
      for (int p = 0; p < F_PIXELS; p++) {
        F x = F_ALL(corner[p * step + k]);
#pragma GCC unroll 8
        for (int v = 0; v < F_VECTORS; v++) sum[p][v] = F_FMA(x, weight[v], sum[p][v]);
      }
    }
#pragma GCC unroll 8
  for (int p = 0; p < F_PIXELS; p++)
#pragma GCC unroll 8
    for (int v = 0; v < F_VECTORS; v++) F_STORE(to + p * F_BLOCK + v * F_LANES, sum[p][v]);
}

// Row y of the convolution of one bordered map, activated: (ow, out).
static void float_row(const Stem *l, const float *map, float *to, int y) {
  size_t row = (size_t)(l->w + 2 * l->pw) * l->channels, step = (size_t)l->sw * l->channels;
  const Activation after = l->after;
  for (int o = 0; o < l->out; o += F_BLOCK) {
    int outs = l->out - o < F_BLOCK ? l->out - o : F_BLOCK;
    for (int x = 0; x < l->ow; x += F_PIXELS) {
      // The last tile of a row goes back over pixels that are there already.
      int first = x + F_PIXELS <= l->ow ? x : l->ow - F_PIXELS;
      float sums[F_PIXELS * F_BLOCK];
      const float *corner = map + (size_t)y * l->sh * row + first * step;
      float_tile(l, corner, row, step, l->weights + (size_t)o * l->kh * l->run, l->shift + o, sums);
      for (int p = 0; p < F_PIXELS; p++) {
        float *restrict at = to + (size_t)(first + p) * l->out + o;
        const float *restrict from = sums + p * F_BLOCK;
        if (l->after.positive) for (int i = 0; i < outs; i++) at[i] = activated(&after, o + i, from[i]);
        else memcpy(at, from, outs * sizeof(float));
      }
    }
  }
}

INLINE float larger(float a, float b) { return b > a || b != b ? b : a; }

// Row y of the pool; `rows` holds the rows of the convolution, each at its number modulo `pool`,
// and one more that is made here: the largest of each column.
static void pool_row(const Stem *l, float *rows, float *to, int y) {
  size_t size = (size_t)l->ow * l->out;
  float *restrict columns = rows + l->pool * size;
  int top = y * l->pool_stride - l->pool_padding, bottom = top + l->pool;
  if (top < 0) top = 0;
  if (bottom > l->oh) bottom = l->oh;
  memcpy(columns, rows + top % l->pool * size, size * sizeof(float));
  for (int i = top + 1; i < bottom; i++) {
    const float *restrict from = rows + i % l->pool * size;
    for (size_t k = 0; k < size; k++) columns[k] = larger(columns[k], from[k]);
  }
  for (int x = 0; x < l->pooled_w; x++, to += l->out) {
    int left = x * l->pool_stride - l->pool_padding, right = left + l->pool;
    if (left < 0) left = 0;
    if (right > l->ow) right = l->ow;
    float *restrict most = to;
    memcpy(most, columns + (size_t)left * l->out, l->out * sizeof(float));
    for (int i = left + 1; i < right; i++) {
      const float *restrict from = columns + (size_t)i * l->out;
      for (int o = 0; o < l->out; o++) most[o] = larger(most[o], from[o]);
    }
  }
}

// Rows first..last of all pooled maps. `rows` is room for pool + 1 rows of the convolution.
static void stem_rows(const Stem *l, const float *bordered, float *rows, float *y, uint8_t *next0, uint8_t *next1, long first, long last) {
  size_t map = (size_t)(l->h + 2 * l->ph) * (l->w + 2 * l->pw) * l->channels, width = l->pooled_w;
  int made = 0;  // rows of the convolution of this map
  for (long q = first; q < last; q++) {
    int row = (int)(q % l->pooled_h), top = row * l->pool_stride - l->pool_padding;
    const float *from = bordered + q / l->pooled_h * map;
    float *to = y + q * width * l->out;
    if (row == 0 || q == first) made = top < 0 ? 0 : top;
    int bottom = top + l->pool < l->oh ? top + l->pool : l->oh;
    if (l->pool == 1) {
      float_row(l, from, to, row);
    } else {
      if (made < top) made = top;
      for (; made < bottom; made++) float_row(l, from, rows + made % l->pool * (size_t)l->ow * l->out, made);
      pool_row(l, rows, to, row);
    }
    if (next0) encode_pixels(l->next[0], to, next0, q * width, (q + 1) * width, l->pooled_h, l->pooled_w);
    if (next1) encode_pixels(l->next[1], to, next1, q * width, (q + 1) * width, l->pooled_h, l->pooled_w);
  }
}

// x (n, channels, h, w) of these strides to y (n, pooled_h, pooled_w, out) and codes. `bordered` is
// room for the bordered maps, `rows` for pool + 1 rows of the convolution for each thread.
void stem(const Stem *l, const float *x, const int64_t *stride, float *bordered, float *rows, float *y, uint8_t *next0, uint8_t *next1, int n, int threads) {
  int height = l->h + 2 * l->ph;
  size_t row = (size_t)(l->w + 2 * l->pw) * l->channels, each_rows = (size_t)(l->pool + 1) * l->ow * l->out;
  long all = (long)n * l->pooled_h, lines = (long)n * height, each = (all + threads - 1) / threads;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
#pragma omp for
    for (long i = 0; i < lines; i++) border_row(l, x + i / height * stride[0], stride, bordered + i * row, (int)(i % height));
#pragma omp for schedule(static, 1)
    for (int t = 0; t < threads; t++) {
      long first = t * each, last = first + each < all ? first + each : all;
      if (first < last) stem_rows(l, bordered, rows + t * each_rows, y, next0, next1, first, last);
    }
  }
}
