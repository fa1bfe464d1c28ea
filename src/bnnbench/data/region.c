/* A window of a JPEG file as RGB of 8 bits, with the pixels that decoding all of it gives.

Rows below the window are not read, of those above it and of columns beside it only the codes are:
their inverse transform, upsampling and colours are left out (libjpeg-turbo's jpeg_skip_scanlines
and jpeg_crop_scanline). Called by regions.py. */

#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

enum { MARGIN = 8 }; /* columns beside the window that upsampled chroma looks at: 2 would do */

struct failure {
    struct jpeg_error_mgr base;
    jmp_buf back;
};

static void leave(j_common_ptr info)
{
    longjmp(((struct failure *)info->err)->back, 1);
}

/* A warning, of level -1, tells of damage: the whole file is decoded then, as it always was. */
static void leave_if_damaged(j_common_ptr info, int level)
{
    if (level < 0)
        leave(info);
}

static void read_window(j_decompress_ptr info, int top, int left, int rows, int columns,
                        uint8_t *out)
{
    int width = (int)info->output_width;
    int first = left > MARGIN ? left - MARGIN : 0;
    int end = left + columns + MARGIN < width ? left + columns + MARGIN : width;
    JDIMENSION start = (JDIMENSION)first, count = (JDIMENSION)(end - first);
    JSAMPARRAY line; /* freed with the image */
    JSAMPROW pixels;

    if (end - first < width)
        jpeg_crop_scanline(info, &start, &count); /* which moves start to a block's edge */
    line = info->mem->alloc_sarray((j_common_ptr)info, JPOOL_IMAGE, info->output_width * 3 + 1, 1);
    pixels = line[0] + 1; /* to an aligned address they would be written past the cache */
    if (top && jpeg_skip_scanlines(info, (JDIMENSION)top) != (JDIMENSION)top)
        leave((j_common_ptr)info);
    for (int row = 0; row < rows; row++) {
        if (jpeg_read_scanlines(info, &pixels, 1) != 1)
            leave((j_common_ptr)info);
        memcpy(out + (size_t)row * columns * 3, pixels + (left - (int)start) * 3,
               (size_t)columns * 3);
    }
}

/* 0, and `out` (rows, columns, 3) is filled; 1 where the file has to be decoded whole. */
int bnnbench_region(const uint8_t *file, size_t bytes, int height, int width, int top, int left,
                    int rows, int columns, uint8_t *out)
{
    struct jpeg_decompress_struct info;
    struct failure failure;

    info.err = jpeg_std_error(&failure.base);
    failure.base.error_exit = leave;
    failure.base.emit_message = leave_if_damaged;
    if (setjmp(failure.back)) {
        jpeg_destroy_decompress(&info);
        return 1;
    }
    jpeg_create_decompress(&info);
    jpeg_mem_src(&info, (unsigned char *)file, bytes);
    jpeg_read_header(&info, TRUE);
    if ((info.num_components != 1 && info.num_components != 3) ||
        (int)info.image_width != width || (int)info.image_height != height)
        leave((j_common_ptr)&info);
    info.out_color_space = JCS_RGB;
    jpeg_start_decompress(&info);
    read_window(&info, top, left, rows, columns, out);
    jpeg_destroy_decompress(&info);
    return 0;
}
