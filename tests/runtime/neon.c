// Runs layers that a test laid out in a file, and compares them with the outputs beside them.
// Compiled for another machine and run under an emulator, where there is no torch.
#include "kernel.c"
#include <stdio.h>
#include <stdlib.h>

typedef struct {
  uint64_t encoder, layer, input, codes, factor, add, output, next, expected, expected_next;  // 0: none
  uint64_t output_bytes, next_bytes;
  int32_t n, h, w;
} Job;

int main(int count, char **arguments) {
  FILE *file = fopen(arguments[count - 1], "rb");
  uint64_t head[3];  // bytes of the blob, pointers in it, jobs
  if (!file || fread(head, 8, 3, file) != 3) return 2;
  uint8_t *blob = aligned_alloc(64, (head[0] + 63) / 64 * 64);
  if (fread(blob, 1, head[0], file) != head[0]) return 2;
  for (uint64_t i = 0, place; i < head[1]; i++) {
    if (fread(&place, 8, 1, file) != 1) return 2;
    *(uint64_t *)(blob + place) += (uint64_t)blob;
  }
  int wrong = 0;
  initialise();
  for (uint64_t i = 0; i < head[2]; i++) {
    Job j;
    if (fread(&j, sizeof(j), 1, file) != 1) return 2;
    Layer *layer = (Layer *)(blob + j.layer);
    encode((Encoder *)(blob + j.encoder), (float *)(blob + j.input), blob + j.codes, j.n, j.h, j.w, 2);
    convolve(layer, blob + j.codes, j.factor ? (float *)(blob + j.factor) : NULL, j.add ? (float *)(blob + j.add) : NULL, (float *)(blob + j.output), 1, j.next ? blob + j.next : NULL, NULL, j.n, 2);
    int is_wrong = memcmp(blob + j.output, blob + j.expected, j.output_bytes) != 0;
    if (j.next) is_wrong |= memcmp(blob + j.next, blob + j.expected_next, j.next_bytes) != 0;
    printf("%d", is_wrong);
    wrong |= is_wrong;
  }
  printf(" %s\n", name());
  return wrong;
}
