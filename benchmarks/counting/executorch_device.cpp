// Takes a picture through an ExecuTorch program twice and writes the logits; closes the file descriptor MARK after each pass.
//
//     run PROGRAM.pte PICTURE LOGITS MARK      both files of float32, in the order of the program's input and output

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include <executorch/extension/data_loader/file_data_loader.h>
#include <executorch/runtime/core/hierarchical_allocator.h>
#include <executorch/runtime/core/memory_allocator.h>
#include <executorch/runtime/executor/memory_manager.h>
#include <executorch/runtime/executor/program.h>
#include <executorch/runtime/platform/runtime.h>

using namespace executorch::runtime;

namespace {

// Takes from the heap and gives nothing back: the process ends soon.
class Heap : public MemoryAllocator {
 public:
  Heap() : MemoryAllocator(0, nullptr) {}

  void* allocate(size_t size, size_t alignment) override {
    alignment = alignment < 16 ? 16 : alignment;
    return aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  }
};

int fail(const char* what, Error error = Error::Ok) {
  fprintf(stderr, "%s (error %d)\n", what, static_cast<int>(error));
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return fail("usage: run PROGRAM.pte PICTURE LOGITS MARK");
  runtime_init();
  auto loader = executorch::extension::FileDataLoader::from(argv[1]);
  if (!loader.ok()) return fail("the program cannot be opened", loader.error());
  auto program = Program::load(&loader.get());
  if (!program.ok()) return fail("the program cannot be read", program.error());
  auto description = program->method_meta("forward");
  if (!description.ok()) return fail("the program has no method forward", description.error());

  std::vector<std::unique_ptr<uint8_t[]>> memory;
  std::vector<Span<uint8_t>> planned;
  for (size_t i = 0; i < description->num_memory_planned_buffers(); ++i) {
    const size_t size = description->memory_planned_buffer_size(i).get();
    memory.emplace_back(new uint8_t[size]);
    planned.push_back({memory.back().get(), size});
  }
  Heap heap, scratch;
  HierarchicalAllocator buffers({planned.data(), planned.size()});
  MemoryManager manager(&heap, &buffers, &scratch);
  auto method = program->load_method("forward", &manager);
  if (!method.ok()) return fail("the method cannot be loaded", method.error());

  auto input = description->input_tensor_meta(0);
  if (!input.ok()) return fail("the method takes no tensor", input.error());
  const auto sizes = input->sizes();
  std::vector<executorch::aten::SizesType> shape(sizes.begin(), sizes.end());
  std::vector<executorch::aten::DimOrderType> order(input->dim_order().begin(), input->dim_order().end());
  std::vector<float> picture(input->nbytes() / sizeof(float));
  FILE* file = fopen(argv[2], "rb");
  if (!file || fread(picture.data(), sizeof(float), picture.size(), file) != picture.size()) {
    return fail("the picture cannot be read");
  }
  fclose(file);
  std::vector<executorch::aten::StridesType> strides(shape.size());
  for (size_t i = shape.size(), step = 1; i-- > 0; step *= shape[order[i]]) strides[order[i]] = step;
  executorch::aten::TensorImpl tensor(
      input->scalar_type(), shape.size(), shape.data(), picture.data(), order.data(), strides.data());

  for (int pass = 0; pass < 2; ++pass) {
    const Error given = method->set_input(EValue(executorch::aten::Tensor(&tensor)), 0);
    if (given != Error::Ok) return fail("the method does not take the picture", given);
    const Error done = method->execute();
    if (done != Error::Ok) return fail("the forward pass failed", done);
    close(atoi(argv[4]));
  }

  const auto logits = method->get_output(0).toTensor();
  const size_t count = logits.numel();
  file = fopen(argv[3], "wb");
  if (!file || fwrite(logits.const_data_ptr<float>(), sizeof(float), count, file) != count || fclose(file)) {
    return fail("the logits cannot be written");
  }
  return 0;
}
