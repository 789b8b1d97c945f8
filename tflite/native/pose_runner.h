/* kpose on a device: a photo and a person's box in, keypoints out. A plain C interface, for C++, Swift, JNI and whatever else.
 *
 *     PoseRunner *runner = pose_runner_create("pose_fp16.tflite", "libLiteRt.so", 2, POSE_ACCELERATOR_AUTO);
 *     if (runner == NULL) { fprintf(stderr, "%s\n", pose_runner_last_error()); exit(2); }
 *     PoseSizes sizes = pose_runner_sizes(runner);
 *     float *keypoints = malloc(sizeof(float) * 3 * sizes.joints);
 *     if (pose_runner_estimate(runner, rgb, width, height, 3 * width, box, keypoints) != 0) { ... pose_runner_last_error() ... }
 *     pose_runner_destroy(runner);
 *
 * The network comes from `kpose convert`; how a crop is cut out and heatmaps are decoded, it says itself. The mathematics is written down
 * in tflite/golden/README.md.
 *
 * Frames: "photo" and "crop" are pixels, pixel centres at whole numbers. Pictures are rows of red, green, blue. A runner is used by one
 * thread at a time; several runners may run side by side.
 */
#ifndef KPOSE_POSE_RUNNER_H_
#define KPOSE_POSE_RUNNER_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define POSE_RUNNER_API __attribute__((visibility("default")))
#else
#define POSE_RUNNER_API
#endif

typedef struct PoseRunner PoseRunner;

typedef enum PoseAccelerator {
  POSE_ACCELERATOR_AUTO = 0, /* the GPU, or where it does not take the whole network, the CPU */
  POSE_ACCELERATOR_CPU = 1,
  POSE_ACCELERATOR_GPU = 2 /* the GPU or an error */
} PoseAccelerator;

typedef struct PoseSizes {
  int32_t input_height, input_width;     /* of the crop */
  int32_t heatmap_height, heatmap_width; /* of each heatmap */
  int32_t joints;                        /* how many heatmaps, and keypoints, there are */
} PoseSizes;

/* Opens a network.
 *
 * model_path: a TFLite file of `kpose convert`. Nothing in it is trusted.
 * litert_path: LiteRT's shared library (libLiteRt.so); its GPU accelerators are looked for in the same folder.
 * threads: of the CPU, at least 1.
 *
 * Returns NULL on failure; pose_runner_last_error says why. */
POSE_RUNNER_API PoseRunner *pose_runner_create(const char *model_path, const char *litert_path, int32_t threads,
                                               PoseAccelerator accelerator);

/* Frees a runner; NULL is allowed. */
POSE_RUNNER_API void pose_runner_destroy(PoseRunner *runner);

/* What went wrong in the last call, in this thread, that returned NULL or something other than 0: one line. Valid until the next call. */
POSE_RUNNER_API const char *pose_runner_last_error(void);

/* Where the network runs: "gpu" or "cpu". Valid as long as the runner is; so are the next three. */
POSE_RUNNER_API const char *pose_runner_accelerator(const PoseRunner *runner);

/* Why it runs on the CPU although the GPU was allowed, one line; "" otherwise. */
POSE_RUNNER_API const char *pose_runner_fallback_reason(const PoseRunner *runner);

/* The card of the network, JSON: skeleton, codec, data, licence, score. */
POSE_RUNNER_API const char *pose_runner_card(const PoseRunner *runner);

/* Name of a joint, 0 <= joint < joints, else NULL. */
POSE_RUNNER_API const char *pose_runner_joint_name(const PoseRunner *runner, int32_t joint);

POSE_RUNNER_API PoseSizes pose_runner_sizes(const PoseRunner *runner);

/* Cuts a person out of a photo.
 *
 * photo: 8 bit RGB; row y begins at photo + y * stride.
 * width, height: of the photo.
 * stride: bytes from row to row, at least 3 * width.
 * box: x, y, width, height in the photo.
 * crop: receives (input_height, input_width, 3) in 0..255, not rounded: black outside of the photo.
 * matrix: receives the map from the photo to the crop, row by row:
 *     crop x = m[0] x + m[1] y + m[2],  crop y = m[3] x + m[4] y + m[5]
 *
 * Returns 0, or something else when the box is refused; so do the following. */
POSE_RUNNER_API int32_t pose_runner_crop(const PoseRunner *runner, const uint8_t *photo, int32_t width, int32_t height, int64_t stride,
                                         const float box[4], float *crop, double matrix[6]);

/* Runs the network.
 *
 * crop: (input_height, input_width, 3) RGB in 0..255; the network normalises it itself.
 * heatmaps: receives (heatmap_height, heatmap_width, joints). */
POSE_RUNNER_API int32_t pose_runner_run(PoseRunner *runner, const float *crop, float *heatmaps);

/* Finds the joints in heatmaps, as the network's card says.
 *
 * heatmaps: (heatmap_height, heatmap_width, joints).
 * matrix: that of pose_runner_crop, for keypoints in the photo; NULL for keypoints in the crop.
 * keypoints: receives (joints, 3): x, y, score. */
POSE_RUNNER_API int32_t pose_runner_decode(const PoseRunner *runner, const float *heatmaps, const double matrix[6], float *keypoints);

/* All three: from a photo and a box to keypoints (joints, 3) in the photo: x, y, score. */
POSE_RUNNER_API int32_t pose_runner_estimate(PoseRunner *runner, const uint8_t *photo, int32_t width, int32_t height, int64_t stride,
                                             const float box[4], float *keypoints);

#ifdef __cplusplus
}
#endif

#endif /* KPOSE_POSE_RUNNER_H_ */
