// Mean magnitudes of the windows of a map, the factors by which a layer may multiply its outputs.
// Sums run over channels a LANES apart, then over lanes by halves, then over the window's columns
// from the top and over these from the left: torch computes the same bits in the same order.

typedef struct {
  float scale;  // of sums
  int32_t channels, h, w, top, bottom, left, right;  // of the map, and the zeros around it
  int32_t kh, kw, sh, sw, dh, dw, oh, ow;
} Mean;

#define F_PARTS (LANES / F_LANES)

// Lanes summed up by halves.
INLINE float lanes_sum(const F *lane) {
#ifdef __aarch64__
  float32x4_t q = vaddq_f32(vaddq_f32(lane[0], lane[2]), vaddq_f32(lane[1], lane[3]));
  float32x2_t two = vadd_f32(vget_low_f32(q), vget_high_f32(q));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
#else
#if VL == 64
  __m256 h = _mm256_add_ps(_mm512_castps512_ps256(lane[0]), _mm512_extractf32x8_ps(lane[0], 1));
#else
  __m256 h = _mm256_add_ps(lane[0], lane[1]);
#endif
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
#endif
}

INLINE float magnitude(const float *x, int channels) {
  F lane[F_PARTS];
  for (int v = 0; v < F_PARTS; v++) lane[v] = F_ALL(0);
  for (; channels >= LANES; channels -= LANES, x += LANES)
    for (int v = 0; v < F_PARTS; v++) lane[v] = F_ADD(lane[v], F_ABS(F_LOAD(x + v * F_LANES)));
  if (channels > 0) {
    float rest[LANES] = {0};
    memcpy(rest, x, channels * sizeof(float));
    for (int v = 0; v < F_PARTS; v++) lane[v] = F_ADD(lane[v], F_ABS(F_LOAD(rest + v * F_LANES)));
  }
  return lanes_sum(lane);
}

// Row y of the bordered sums of one map.
static void magnitude_row(const Mean *m, const float *x, float *to, int y) {
  memset(to, 0, (size_t)(m->left + m->w + m->right) * sizeof(float));
  if (y < m->top || y >= m->top + m->h) return;
  x += (size_t)(y - m->top) * m->w * m->channels;
  to += m->left;
  if (m->channels == LANES)
    for (int i = 0; i < m->w; i++) to[i] = magnitude(x + i * LANES, LANES);
  else
    for (int i = 0; i < m->w; i++) to[i] = magnitude(x + (size_t)i * m->channels, m->channels);
}

// A row of windows of which `top` is the first row of sums; `columns` is room for one row.
static void mean_row(const Mean *m, const float *top, float *restrict columns, float *restrict y) {
  int width = m->left + m->w + m->right;
  memcpy(columns, top, width * sizeof(float));
  for (int k = 1; k < m->kh; k++) {
    const float *restrict from = top + (size_t)k * m->dh * width;
    for (int i = 0; i < width; i++) columns[i] += from[i];
  }
  for (int i = 0; i < m->ow; i++) y[i] = columns[i * m->sw];
  for (int k = 1; k < m->kw; k++)
    for (int i = 0; i < m->ow; i++) y[i] += columns[i * m->sw + k * m->dw];
  for (int i = 0; i < m->ow; i++) y[i] *= m->scale;
}

// x (n, h, w, channels) to y (n, oh, ow). `sums` is room for the bordered sums, `columns` for a row
// of them for each thread.
void means(const Mean *m, const float *x, float *sums, float *columns, float *y, int n, int threads) {
  int height = m->top + m->h + m->bottom, width = m->left + m->w + m->right;
  long lines = (long)n * height, all = (long)n * m->oh, each;
  if (lines * width * m->channels < SMALL_WORK / 4) threads = 1;
  each = (all + threads - 1) / threads;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
#pragma omp for
    for (long i = 0; i < lines; i++)
      magnitude_row(m, x + i / height * m->h * m->w * m->channels, sums + i * width, (int)(i % height));
#pragma omp for schedule(static, 1)
    for (int t = 0; t < threads; t++)
      for (long q = t * each; q < all && q < (t + 1) * each; q++) {
        long row = q / m->oh * height + q % m->oh * m->sh;
        mean_row(m, sums + row * width, columns + (long)t * width, y + q * m->ow);
      }
  }
}
