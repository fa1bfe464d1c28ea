// Counts of PIXELS windows and VECTORS * VL outputs: the inner loop of kernel.c, once a shape.
// The shape is of the preprocessor, because counters of a size that the compiler has to find out
// stay in memory.
static void TILE(const Layer *l, const uint8_t *const *corner, size_t offset, const uint8_t *w, uint16_t count[][2 * VL]) {
  V sum[PIXELS][VECTORS][2], acc[PIXELS][VECTORS];
#pragma GCC unroll 8
  for (int p = 0; p < PIXELS; p++)
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) acc[p][v] = sum[p][v][0] = sum[p][v][1] = ZERO();
  int held = 0;  // codes that are in the bytes of acc
  for (int s = 0; s < l->segments; s++) {
    const uint8_t *run[PIXELS];
    for (int p = 0; p < PIXELS; p++) run[p] = corner[p] + offset + l->segment[s];
    for (int k = 0; k < l->length;) {
      int end = l->length - k > STEPS - held ? k + STEPS - held : l->length;
      held += end - k;
      for (; k < end; k++, w += VECTORS * VL) {
        V index[VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) {
          index[v] = LOAD(w + v * VL);
          KEEP(index[v]);
        }
#pragma GCC unroll 8
        for (int p = 0; p < PIXELS; p++) {
          V row = ROW(run[p][k]);
#pragma GCC unroll 8
          for (int v = 0; v < VECTORS; v++) acc[p][v] = ADD8(acc[p][v], SHUFFLE(row, index[v]));
        }
      }
      if (held == STEPS || (s == l->segments - 1 && k == l->length)) {
        held = 0;
#pragma GCC unroll 8
        for (int p = 0; p < PIXELS; p++)
#pragma GCC unroll 8
          for (int v = 0; v < VECTORS; v++) {
            sum[p][v][0] = ADD16(sum[p][v][0], EVEN(acc[p][v]));
            sum[p][v][1] = ADD16(sum[p][v][1], ODD(acc[p][v]));
            acc[p][v] = ZERO();
          }
      }
    }
  }
#pragma GCC unroll 8
  for (int p = 0; p < PIXELS; p++)
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) {
      STORE(count[p] + v * VL, sum[p][v][0]);
      STORE(count[p] + v * VL + VL / 2, sum[p][v][1]);
    }
}
