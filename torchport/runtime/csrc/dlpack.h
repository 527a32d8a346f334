// The C exchange API of DLPack 1.2 (dlpack.h of github.com/dmlc/dlpack), as much of it as is used here. It tells what a
// tensor is and needs no header of torch.
#pragma once

#include <cstdint>

namespace torchport {

struct DLTensor {
  void *data;
  int32_t device_type, device_id;
  int32_t ndim;
  uint8_t dtype_code, dtype_bits;
  uint16_t dtype_lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};
struct DLPackExchangeAPI {
  uint32_t major, minor;
  void *previous;
  void *allocate;
  void *managed_from_object;
  void *managed_to_object;
  int (*tensor_from_object)(void *object, DLTensor *out);
  void *current_stream;
};
constexpr int32_t kDLCPU = 1, kDLCUDAHost = 3;

}  // namespace torchport
