// A device that pretends to be an accelerator: its tensors lie in the host's memory, and every operation is done by the
// CPU on copies. An operation that is given tensors of the CPU beside those of the device is an error, as on a GPU.

#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/extension.h>

using at::Tensor;

namespace {

constexpr auto KIND = c10::DeviceType::PrivateUse1;
const c10::Device DEVICE(KIND, 0);
const c10::DispatchKeySet KEYS(c10::DispatchKey::PrivateUse1);

struct Allocator final : at::Allocator {
  at::DataPtr allocate(size_t size) override {
    void* memory = c10::alloc_cpu(size);
    return {memory, memory, &c10::free_cpu, DEVICE};
  }
  void copy_data(void* to, const void* from, std::size_t size) const override { default_copy_data(to, from, size); }
};
Allocator allocator;
REGISTER_ALLOCATOR(KIND, &allocator);

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return KIND; }
  c10::Device exchangeDevice(c10::Device) const override { return DEVICE; }
  c10::Device getDevice() const override { return DEVICE; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return c10::Stream(c10::Stream::DEFAULT, DEVICE); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
};
Hooks hooks;
const bool registered = (at::RegisterPrivateUse1HooksInterface(&hooks), true);

Tensor empty(c10::SymIntArrayRef sizes, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
             std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  const auto shape = C10_AS_INTARRAYREF_SLOW(sizes);
  return at::detail::empty_generic(shape, &allocator, KEYS, c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(c10::IntArrayRef sizes, c10::IntArrayRef strides, std::optional<at::ScalarType> dtype,
                     std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(sizes, strides, &allocator, KEYS, c10::dtype_or_default(dtype));
}

// The same memory as a tensor of the CPU.
Tensor host(const Tensor& x) {
  if (x.is_cpu()) return x;
  auto* start = static_cast<char*>(x.storage().mutable_data()) + x.storage_offset() * x.itemsize();
  return at::from_blob(start, x.sizes(), x.strides(), at::TensorOptions().dtype(x.dtype()));
}

Tensor copy_from(const Tensor& from, const Tensor& to, bool) {
  host(to).copy_(host(from));
  return to;
}

Tensor copy_from_and_resize(const Tensor& from, const Tensor& to) {
  to.resize_(from.sizes());
  return copy_from(from, to, false);
}

const Tensor& resize(const Tensor& x, c10::SymIntArrayRef symbolic, std::optional<at::MemoryFormat>) {
  const auto sizes = C10_AS_INTARRAYREF_SLOW(symbolic);
  if (x.sizes() == sizes) return x;  // strides stay
  const size_t needed = (c10::multiply_integers(sizes) + x.storage_offset()) * x.itemsize();
  if (x.storage().nbytes() < needed) {
    auto larger = allocator.allocate(needed);
    memcpy(larger.get(), x.storage().data(), x.storage().nbytes());
    x.storage().set_data_ptr(std::move(larger));
    x.storage().set_nbytes(needed);
  }
  x.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
  return x;
}

Tensor& set_storage(Tensor& x, at::Storage storage) {
  const int64_t count = storage.nbytes() / x.itemsize();
  x.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(storage));
  x.unsafeGetTensorImpl()->set_storage_offset(0);
  x.unsafeGetTensorImpl()->set_sizes_contiguous({count});
  return x;
}

Tensor view(const Tensor& x, c10::SymIntArrayRef sizes) {
  return at::native::view(x, C10_AS_INTARRAYREF_SLOW(sizes));
}

Tensor as_strided(const Tensor& x, c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides,
                  std::optional<c10::SymInt> offset) {
  const auto start = offset ? std::optional<int64_t>(offset->expect_int()) : std::nullopt;
  return at::native::as_strided_tensorimpl(x, C10_AS_INTARRAYREF_SLOW(sizes), C10_AS_INTARRAYREF_SLOW(strides), start);
}

Tensor reshape_alias(const Tensor& x, c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides) {
  return at::native::_reshape_alias(x, C10_AS_INTARRAYREF_SLOW(sizes), C10_AS_INTARRAYREF_SLOW(strides));
}

at::Scalar item(const Tensor& x) { return host(x).item(); }

// Any other operation. Single numbers may be on the CPU, and what a tensor of the device is indexed by.
void fallback(const c10::OperatorHandle& operation, torch::jit::Stack* stack) {
  bool here = false, elsewhere = false;
  const auto see = [&](const Tensor& x) {
    if (!x.defined()) return;
    here |= x.device() == DEVICE;
    elsewhere |= x.is_cpu() && x.dim() > 0;
  };
  for (const auto& argument : torch::jit::last(*stack, operation.schema().arguments().size())) {
    if (argument.isTensor()) see(argument.toTensor());
    if (argument.isTensorList()) {
      for (const Tensor& x : argument.toTensorVector()) see(x);
    }
    if (argument.isOptionalTensorList()) {
      for (const std::optional<Tensor>& index : argument.toOptionalTensorList()) {
        here |= index && index->device() == DEVICE;
      }
    }
  }
  TORCH_CHECK(!(here && elsewhere), operation.operator_name(), " got tensors of the device and of the CPU");
  at::native::cpu_fallback(operation, stack);
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("resize_", resize);
  m.impl("set_.source_Storage", set_storage);
  m.impl("view", view);
  m.impl("as_strided", as_strided);
  m.impl("_reshape_alias", reshape_alias);
  m.impl("_local_scalar_dense", item);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {}
