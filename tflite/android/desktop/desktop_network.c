/* The native runner (tflite/native) for the desktop JVM: what DesktopNetwork.kt calls. */
#include <jni.h>
#include <stddef.h>

#include "pose_runner.h"

#define NATIVE(type, name) JNIEXPORT type JNICALL Java_org_kpose_pose_desktop_NativeRunner_##name

NATIVE(jlong, create)(JNIEnv *env, jclass type, jstring model, jstring litert, jint threads, jint accelerator) {
  (void)type;
  const char *model_path = (*env)->GetStringUTFChars(env, model, NULL);
  const char *litert_path = model_path == NULL ? NULL : (*env)->GetStringUTFChars(env, litert, NULL);
  PoseRunner *runner = NULL;
  if (litert_path != NULL) {
    runner = pose_runner_create(model_path, litert_path, threads, (PoseAccelerator)accelerator);
    (*env)->ReleaseStringUTFChars(env, litert, litert_path);
  }
  if (model_path != NULL) (*env)->ReleaseStringUTFChars(env, model, model_path);
  return (jlong)(intptr_t)runner;
}

NATIVE(void, destroy)(JNIEnv *env, jclass type, jlong runner) {
  (void)env, (void)type;
  pose_runner_destroy((PoseRunner *)(intptr_t)runner);
}

NATIVE(jstring, lastError)(JNIEnv *env, jclass type) {
  (void)type;
  return (*env)->NewStringUTF(env, pose_runner_last_error());
}

NATIVE(jstring, accelerator)(JNIEnv *env, jclass type, jlong runner) {
  (void)type;
  return (*env)->NewStringUTF(env, pose_runner_accelerator((const PoseRunner *)(intptr_t)runner));
}

/* Of a checked size: heatmaps (heatmap_height, heatmap_width, joints) of a crop (input_height, input_width, 3); 0, or what went wrong. */
NATIVE(jint, run)(JNIEnv *env, jclass type, jlong runner, jfloatArray crop, jfloatArray heatmaps) {
  (void)type;
  jfloat *from = (*env)->GetFloatArrayElements(env, crop, NULL);
  if (from == NULL) return -1;
  jfloat *to = (*env)->GetFloatArrayElements(env, heatmaps, NULL);
  jint problem = -1;
  if (to != NULL) {
    problem = pose_runner_run((PoseRunner *)(intptr_t)runner, from, to);
    (*env)->ReleaseFloatArrayElements(env, heatmaps, to, 0);
  }
  (*env)->ReleaseFloatArrayElements(env, crop, from, JNI_ABORT);
  return problem;
}
