// Those functions of LiteRT's C interface that are used here, declared anew: as of version 2.3, whose library ai-edge-litert brings.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kpose::litert {

using Handle = void *;
using Status = int;  // 0 is success

constexpr int kElementFloat32 = 1, kElementUInt8 = 3, kElementInt8 = 9;
constexpr int kQuantizedPerTensor = 1;
constexpr int kCpu = 1, kGpu = 2;  // bits
constexpr int kLockRead = 0, kLockWrite = 1;
constexpr int kAnyInteger = 2, kAnyString = 8;
constexpr int kOptionRuntimeFolder = 22, kOptionAccelerators = 24, kOptionLeastSeverity = 25;
constexpr int kSeverityError = 3;

struct TensorType {
  int element;
  uint32_t rank_and_flags;  // the rank in the lowest seven bits
  int32_t dimensions[8];
  uint32_t strides[8];
};
static_assert(sizeof(TensorType) == 72);

struct Quantisation {
  float scale;
  int64_t zero;
};
static_assert(sizeof(Quantisation) == 16);

struct EnvironmentOption {
  int tag;
  struct {
    int type;  // one of kAny...
    union {
      int64_t integer;
      const char *string;
    };
  } value;
};
static_assert(sizeof(EnvironmentOption) == 24);

// X(name in the library, arguments); all return a status but those that destroy.
#define KPOSE_LITERT_FUNCTIONS(X)                                                              \
  X(CreateEnvironment, (int, const EnvironmentOption *, Handle *))                             \
  X(CreateModelFromBuffer, (Handle environment, const void *, size_t, Handle *))               \
  X(GetNumModelSignatures, (Handle model, size_t *))                                           \
  X(GetModelSignature, (Handle model, size_t, Handle *))                                       \
  X(GetNumSignatureInputs, (Handle signature, size_t *))                                       \
  X(GetNumSignatureOutputs, (Handle signature, size_t *))                                      \
  X(GetSignatureInputTensorByIndex, (Handle signature, size_t, Handle *))                      \
  X(GetSignatureOutputTensorByIndex, (Handle signature, size_t, Handle *))                     \
  X(GetRankedTensorType, (Handle tensor, TensorType *))                                        \
  X(GetQuantizationTypeId, (Handle tensor, int *))                                             \
  X(GetPerTensorQuantization, (Handle tensor, Quantisation *))                                 \
  X(CreateOptions, (Handle *))                                                                 \
  X(SetOptionsHardwareAccelerators, (Handle options, int))                                     \
  X(CreateOpaqueOptions, (const char *, void *, void (*)(void *), Handle *))                   \
  X(AddOpaqueOptions, (Handle options, Handle opaque))                                         \
  X(CreateCompiledModel, (Handle environment, Handle model, Handle options, Handle *))         \
  X(CompiledModelIsFullyAccelerated, (Handle compiled, bool *))                                \
  X(GetCompiledModelInputBufferRequirements, (Handle compiled, size_t, size_t, Handle *))      \
  X(GetCompiledModelOutputBufferRequirements, (Handle compiled, size_t, size_t, Handle *))     \
  X(CreateManagedTensorBufferFromRequirements, (Handle, const TensorType *, Handle, Handle *)) \
  X(GetTensorBufferPackedSize, (Handle buffer, size_t *))                                      \
  X(LockTensorBuffer, (Handle buffer, void **, int))                                           \
  X(UnlockTensorBuffer, (Handle buffer))                                                       \
  X(RunCompiledModel, (Handle compiled, size_t, size_t, Handle *, size_t, Handle *))

#define KPOSE_LITERT_DESTROYERS(X) \
  X(DestroyEnvironment)            \
  X(DestroyModel)                  \
  X(DestroyOptions)                \
  X(DestroyCompiledModel)          \
  X(DestroyTensorBuffer)

struct Api {
#define KPOSE_MEMBER(name, arguments) Status(*name) arguments = nullptr;
  KPOSE_LITERT_FUNCTIONS(KPOSE_MEMBER)
#undef KPOSE_MEMBER
#define KPOSE_MEMBER(name) void (*name)(Handle) = nullptr;
  KPOSE_LITERT_DESTROYERS(KPOSE_MEMBER)
#undef KPOSE_MEMBER
};

}  // namespace kpose::litert
