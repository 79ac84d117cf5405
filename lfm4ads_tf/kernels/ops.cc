// TensorFlow ops over rows.h. They run in training only; no exported graph holds them.
#include <unordered_set>

#include "absl/synchronization/mutex.h"
#include "rows.h"
#define EIGEN_USE_THREADS

#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_var.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/framework/tensor_util.h"
#include "tensorflow/core/kernels/training_op_helpers.h"
#include "tensorflow/core/util/work_sharder.h"

namespace lfm4ads {
namespace {

using tensorflow::DT_BFLOAT16;
using tensorflow::DT_FLOAT;
using tensorflow::DT_HALF;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::core::RefCountPtr;
using tensorflow::shape_inference::InferenceContext;

// The op's thread pool as a ParallelFor.
ParallelFor Threads(OpKernelContext* context) {
  const auto* workers = context->device()->tensorflow_cpu_worker_threads();
  return [workers](int tasks, const std::function<void(int)>& task) {
    // the cost per task only has to be large enough for one task per thread
    tensorflow::Shard(workers->num_threads, workers->workers, tasks, 1 << 20,
                      [&](int64_t begin, int64_t end) {
                        for (int64_t i = begin; i < end; ++i) task(static_cast<int>(i));
                      });
  };
}

// Large activations of a step lie in the same few places step after step; each place is put on huge
// pages when it is first seen.
void SettleLarge(const Tensor& tensor) {
  constexpr int64_t kLarge = 4 << 20;
  constexpr size_t kMost = 1 << 12;
  const int64_t bytes = tensor.TotalBytes();
  if (bytes < kLarge) return;
  static absl::Mutex mutex(absl::kConstInit);
  static auto* seen = new std::unordered_set<const void*>;
  {
    absl::MutexLock lock(&mutex);
    if (seen->size() >= kMost || !seen->insert(tensor.data()).second) return;
  }
  AdviseHugePages(tensor.data(), bytes, true);
}

absl::Status CheckOccurrences(const Tensor& ids, const Tensor& grads) {
  if (ids.dims() != 1 || grads.dims() != 2 || ids.dim_size(0) != grads.dim_size(0)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "indices must be (N,) and values (N, width), received ", ids.shape().DebugString(),
        " and ", grads.shape().DebugString()));
  }
  if (ids.dim_size(0) >= (int64_t{1} << 31)) {
    return absl::InvalidArgumentError("a step may touch fewer than 2^31 rows");
  }
  return absl::OkStatus();
}

absl::Status CheckIds(const Tensor& ids, int64_t rows) {
  const int64_t* values = ids.flat<int64_t>().data();
  int64_t wrong = 0;
  for (int64_t i = 0; i < ids.NumElements(); ++i) {
    wrong |= values[i] | (rows - 1 - values[i]);  // negative if either is
  }
  if (wrong < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("an index lies outside the table's rows [0, ", rows, ")"));
  }
  return absl::OkStatus();
}

Occurrences MakeOccurrences(const Tensor& ids, const Tensor& grads) {
  return {ids.flat<int64_t>().data(), grads.flat<float>().data(), ids.dim_size(0),
          grads.dim_size(1)};
}

class UpdateRowsOp : public OpKernel {
 public:
  explicit UpdateRowsOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("sets", &sets_));
    OP_REQUIRES_OK(context, context->GetAttr("per_element", &per_element_));
    OP_REQUIRES_OK(context, context->GetAttr("options", &options_));
    OP_REQUIRES_OK(context, context->GetAttr("l2", &l2_));
    std::string rule;
    OP_REQUIRES_OK(context, context->GetAttr("rule", &rule));
    rule_ = rule == "adagrad" ? Rule::kAdagrad
            : rule == "adam"  ? Rule::kAdam
            : rule == "ftrl"  ? Rule::kFtrl
                              : Rule::kSgd;
  }

  void Compute(OpKernelContext* context) override {
    RefCountPtr<tensorflow::Var> variable;
    OP_REQUIRES_OK(context,
                   tensorflow::LookupResource(context, tensorflow::HandleFromInput(context, 0),
                                              &variable));
    tensorflow::OpInputList handles;
    OP_REQUIRES_OK(context, context->input_list("slots", &handles));
    const int first = 1 + handles.size();
    const Tensor& ids = context->input(first);
    const Tensor& grads = context->input(first + 1);
    const float rate = context->input(first + 2).scalar<float>()();
    OP_REQUIRES_OK(context, CheckOccurrences(ids, grads));

    std::vector<RefCountPtr<tensorflow::Var>> owners(handles.size());
    std::vector<SlotArray> slots;
    OP_REQUIRES_OK(context, Prepare(context, variable.get()));
    tensorflow::mutex_lock lock(*variable->mu());
    Tensor* table = variable->tensor();
    OP_REQUIRES(context, table->dims() == 2 && table->dim_size(1) == grads.dim_size(1),
                absl::InvalidArgumentError(absl::StrCat("the table has shape ",
                                                        table->shape().DebugString(),
                                                        ", the gradient ",
                                                        grads.shape().DebugString())));
    OP_REQUIRES_OK(context, CheckIds(ids, table->dim_size(0)));
    for (int i = 0; i < handles.size(); ++i) {
      OP_REQUIRES_OK(context,
                     tensorflow::LookupResource(
                         context, tensorflow::HandleFromInput(context, 1 + i), &owners[i]));
      OP_REQUIRES_OK(context, Prepare(context, owners[i].get()));
      Tensor* slot = owners[i]->tensor();
      const int64_t width = per_element_[i] ? grads.dim_size(1) : sets_;
      OP_REQUIRES(context,
                  slot->dtype() == DT_FLOAT && slot->dims() == 2 &&
                      slot->dim_size(0) == table->dim_size(0) && slot->dim_size(1) == width,
                  absl::InvalidArgumentError(absl::StrCat("slot ", i, " has shape ",
                                                          slot->shape().DebugString())));
      slots.push_back({slot->flat<float>().data(), static_cast<bool>(per_element_[i])});
    }
    Table rows{nullptr, Storage::kFloat32, table->dim_size(0), sets_,
               static_cast<int>(table->dim_size(1) / sets_)};
    if (table->dtype() == DT_FLOAT) {
      rows.data = table->flat<float>().data();
    } else if (table->dtype() == DT_BFLOAT16) {
      rows.data = table->flat<tensorflow::bfloat16>().data();
      rows.storage = Storage::kBfloat16;
    } else {
      OP_REQUIRES(context, table->dtype() == DT_HALF,
                  absl::InvalidArgumentError("a table is float32, bfloat16 or float16"));
      rows.data = table->flat<Eigen::half>().data();
      rows.storage = Storage::kFloat16;
    }
    SettleLarge(grads);
    UpdateRows(MakeOccurrences(ids, grads), rows, slots, {rule_, options_, rate, l2_},
               Threads(context));
  }

 private:
  // From now on dense reads of the variable copy it, so that rows may be written in place.
  absl::Status Prepare(OpKernelContext* context, tensorflow::Var* variable) {
    if (variable->copy_on_read_mode.load()) return absl::OkStatus();
    switch (variable->tensor()->dtype()) {
      case DT_BFLOAT16:
        return tensorflow::EnsureSparseVariableAccess<Eigen::ThreadPoolDevice,
                                                      tensorflow::bfloat16>(context, variable);
      case DT_HALF:
        return tensorflow::EnsureSparseVariableAccess<Eigen::ThreadPoolDevice, Eigen::half>(
            context, variable);
      default:
        return tensorflow::EnsureSparseVariableAccess<Eigen::ThreadPoolDevice, float>(context,
                                                                                      variable);
    }
  }

  int sets_;
  std::vector<bool> per_element_;
  std::vector<float> options_;
  float l2_;
  Rule rule_;
};

class SumDuplicatesOp : public OpKernel {
 public:
  explicit SumDuplicatesOp(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    const Tensor& ids = context->input(0);
    const Tensor& grads = context->input(1);
    OP_REQUIRES_OK(context, CheckOccurrences(ids, grads));
    OP_REQUIRES_OK(context, CheckIds(ids, int64_t{1} << 31));
    const ParallelFor parallel_for = Threads(context);
    Summed summed;
    SumDuplicates(MakeOccurrences(ids, grads), parallel_for, &summed);
    const int64_t count = summed.starts.back(), width = grads.dim_size(1);
    Tensor *rows, *sums;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({count}), &rows));
    OP_REQUIRES_OK(context, context->allocate_output(1, TensorShape({count, width}), &sums));
    int64_t* row_data = rows->flat<int64_t>().data();
    float* sum_data = sums->flat<float>().data();
    parallel_for(static_cast<int>(summed.rows.size()), [&](int p) {
      WritePartition(summed, p, width, row_data, sum_data);
    });
  }
};

class CrossOp : public OpKernel {
 public:
  explicit CrossOp(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    const Tensor& x0 = context->input(0);
    OP_REQUIRES(context,
                x0.dims() == 2 && context->input(1).shape() == x0.shape() &&
                    context->input(2).shape() == TensorShape({x0.dim_size(1)}) &&
                    context->input(3).shape() == x0.shape(),
                absl::InvalidArgumentError("cross takes x0, h, x of (B, d) and b of (d)"));
    Tensor* y;
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({1}, 0, x0.shape(), &y));
    for (int i : {0, 1, 3}) SettleLarge(context->input(i));
    SettleLarge(*y);
    CrossForward(x0.flat<float>().data(), context->input(1).flat<float>().data(),
                 context->input(2).flat<float>().data(), context->input(3).flat<float>().data(),
                 x0.dim_size(0), x0.dim_size(1), y->flat<float>().data(), Threads(context));
  }
};

class CrossGradOp : public OpKernel {
 public:
  explicit CrossGradOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("first", &first_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& dy = context->input(0);
    OP_REQUIRES(context,
                dy.dims() == 2 && context->input(1).shape() == dy.shape() &&
                    context->input(2).shape() == dy.shape() &&
                    context->input(3).shape() == TensorShape({dy.dim_size(1)}),
                absl::InvalidArgumentError("cross's gradient takes dy, x0, h of (B, d), b of (d)"));
    Tensor *dx0, *dh, *db;
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({0}, 0, dy.shape(), &dx0));
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({2}, 1, dy.shape(), &dh));
    OP_REQUIRES_OK(context, context->allocate_output(2, TensorShape({dy.dim_size(1)}), &db));
    for (int i : {0, 1, 2}) SettleLarge(context->input(i));
    SettleLarge(*dx0);
    SettleLarge(*dh);
    CrossBackward(dy.flat<float>().data(), context->input(1).flat<float>().data(),
                  context->input(2).flat<float>().data(), context->input(3).flat<float>().data(),
                  first_, dy.dim_size(0), dy.dim_size(1), dx0->flat<float>().data(),
                  dh->flat<float>().data(), db->flat<float>().data(), Threads(context));
  }

 private:
  bool first_;
};

class LookupOp : public OpKernel {
 public:
  explicit LookupOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("offsets", &fields_.offsets));
    OP_REQUIRES_OK(context, context->GetAttr("sizes", &fields_.sizes));
    OP_REQUIRES_OK(context, context->GetAttr("multiplier", &fields_.multiplier));
    OP_REQUIRES_OK(context, context->GetAttr("shift", &fields_.shift));
    OP_REQUIRES(context, fields_.offsets.size() == fields_.sizes.size(),
                absl::InvalidArgumentError("one size per offset"));
  }

  void Compute(OpKernelContext* context) override {
    RefCountPtr<tensorflow::Var> variable;
    OP_REQUIRES_OK(context,
                   tensorflow::LookupResource(context, tensorflow::HandleFromInput(context, 0),
                                              &variable));
    const Tensor& ids = context->input(1);
    const int64_t count = static_cast<int64_t>(fields_.offsets.size());
    OP_REQUIRES(context, ids.dims() == 2 && ids.dim_size(1) == count,
                absl::InvalidArgumentError(absl::StrCat("ids must be (B, ", count, "), received ",
                                                        ids.shape().DebugString())));
    tensorflow::tf_shared_lock lock(*variable->mu());
    const Tensor& table = *variable->tensor();
    OP_REQUIRES(context, table.dtype() == DT_FLOAT && table.dims() == 2,
                absl::InvalidArgumentError("the table must be float32 of two axes"));
    FieldRows fields = fields_;
    fields.table_rows = table.dim_size(0);
    for (int64_t f = 0; f < count; ++f) {
      OP_REQUIRES(context,
                  fields.offsets[f] >= 0 && fields.offsets[f] + fields.sizes[f] < fields.table_rows,
                  absl::InvalidArgumentError("a field reaches beyond the table"));
    }
    const int64_t width = table.dim_size(1);
    Tensor *values, *rows;
    OP_REQUIRES_OK(context, context->allocate_output(
                                0, TensorShape({ids.NumElements(), width}), &values));
    OP_REQUIRES_OK(context,
                   context->allocate_output(1, TensorShape({ids.NumElements()}), &rows));
    SettleLarge(*values);
    const int64_t wrong = LookupRows(ids.flat<int64_t>().data(), ids.dim_size(0), fields,
                                     table.flat<float>().data(), width,
                                     rows->flat<int64_t>().data(), values->flat<float>().data(),
                                     Threads(context));
    OP_REQUIRES(context, wrong < 0,
                absl::InvalidArgumentError(absl::StrCat(
                    "An embedding id lies outside [-1, rows) of its table: field ", wrong, ", ",
                    wrong < 0 ? 0 : fields.sizes[wrong], " rows")));
  }

 private:
  FieldRows fields_;
};

class ColumnSumsOp : public OpKernel {
 public:
  explicit ColumnSumsOp(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    const Tensor& x = context->input(0);
    OP_REQUIRES(context, x.dims() == 2, absl::InvalidArgumentError("column sums take (B, d)"));
    Tensor* sums;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({x.dim_size(1)}), &sums));
    SettleLarge(x);
    ColumnSums(x.flat<float>().data(), x.dim_size(0), x.dim_size(1), sums->flat<float>().data(),
               Threads(context));
  }
};

// Sets, batch and width of (B, d) or (n, B, d).
struct Sizes {
  explicit Sizes(const Tensor& x)
      : sets(x.dims() == 3 ? x.dim_size(0) : 1),
        batch(x.dim_size(x.dims() - 2)),
        width(x.dim_size(x.dims() - 1)) {}
  int64_t sets, batch, width;
};

// Whether a bias has a value for each column of each set.
absl::Status FitsBias(const Tensor& bias, const Sizes& sizes) {
  if (bias.NumElements() == sizes.sets * sizes.width) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("a bias of ", bias.shape().DebugString(), " for ",
                                                 sizes.sets, " sets of width ", sizes.width));
}

// An activation over x + b, whichever function it is.
using BiasForward = void (*)(const float*, const float*, int64_t, int64_t, int64_t, float*,
                             const ParallelFor&);

template <BiasForward forward>
class BiasActivationOp : public OpKernel {
 public:
  explicit BiasActivationOp(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    const Tensor &x = context->input(0), &b = context->input(1);
    OP_REQUIRES(context, x.dims() == 2 || x.dims() == 3,
                absl::InvalidArgumentError("a bias is added to (B, d) or (n, B, d)"));
    const Sizes sizes(x);
    OP_REQUIRES_OK(context, FitsBias(b, sizes));
    Tensor* y;
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({0}, 0, x.shape(), &y));
    SettleLarge(*y);
    forward(x.flat<float>().data(), b.flat<float>().data(), sizes.sets, sizes.batch, sizes.width,
            y->flat<float>().data(), Threads(context));
  }
};

class BiasReluGradOp : public OpKernel {
 public:
  explicit BiasReluGradOp(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    const Tensor &dy = context->input(0), &y = context->input(1);
    OP_REQUIRES(context, (y.dims() == 2 || y.dims() == 3) && dy.shape() == y.shape(),
                absl::InvalidArgumentError("dy and y must be (B, d) or (n, B, d)"));
    const Sizes sizes(y);
    Tensor *dx, *db;
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({0}, 0, y.shape(), &dx));
    const TensorShape bias = y.dims() == 3 ? TensorShape({sizes.sets, 1, sizes.width})
                                           : TensorShape({sizes.width});
    OP_REQUIRES_OK(context, context->allocate_output(1, bias, &db));
    SettleLarge(*dx);
    BiasReluBackward(dy.flat<float>().data(), y.flat<float>().data(), sizes.sets, sizes.batch,
                     sizes.width, dx->flat<float>().data(), db->flat<float>().data(),
                     Threads(context));
  }
};

class BiasGeluGradOp : public OpKernel {
 public:
  explicit BiasGeluGradOp(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    const Tensor &dy = context->input(0), &x = context->input(1), &b = context->input(2);
    OP_REQUIRES(context, (x.dims() == 2 || x.dims() == 3) && dy.shape() == x.shape(),
                absl::InvalidArgumentError("dy and x must be (B, d) or (n, B, d)"));
    const Sizes sizes(x);
    OP_REQUIRES_OK(context, FitsBias(b, sizes));
    Tensor *dx, *db;
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({0}, 0, x.shape(), &dx));
    OP_REQUIRES_OK(context, context->allocate_output(1, b.shape(), &db));
    SettleLarge(*dx);
    BiasGeluBackward(dy.flat<float>().data(), x.flat<float>().data(), b.flat<float>().data(),
                     sizes.sets, sizes.batch, sizes.width, dx->flat<float>().data(),
                     db->flat<float>().data(), Threads(context));
  }
};

class AdamStepOp : public OpKernel {
 public:
  explicit AdamStepOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("beta_1", &beta_1_));
    OP_REQUIRES_OK(context, context->GetAttr("beta_2", &beta_2_));
    OP_REQUIRES_OK(context, context->GetAttr("epsilon", &epsilon_));
    OP_REQUIRES_OK(context, context->GetAttr("decays", &decays_));
  }

  void Compute(OpKernelContext* context) override {
    tensorflow::OpInputList handles[3], gradients;
    const char* names[3] = {"variables", "first_moments", "second_moments"};
    for (int k = 0; k < 3; ++k) {
      OP_REQUIRES_OK(context, context->input_list(names[k], &handles[k]));
    }
    OP_REQUIRES_OK(context, context->input_list("gradients", &gradients));
    const Tensor& rates = context->input(4 * gradients.size());
    const float correction = context->input(4 * gradients.size() + 1).scalar<float>()();
    OP_REQUIRES(context,
                rates.NumElements() == gradients.size() &&
                    static_cast<int>(decays_.size()) == gradients.size(),
                absl::InvalidArgumentError("one learning rate and one decay per variable"));
    std::vector<RefCountPtr<tensorflow::Var>> owners(3 * gradients.size());
    std::vector<tensorflow::mutex_lock> locks;
    locks.reserve(owners.size());
    std::vector<DenseVariable> variables;
    for (int i = 0; i < gradients.size(); ++i) {
      float* data[3];
      for (int k = 0; k < 3; ++k) {
        auto& owner = owners[3 * i + k];
        OP_REQUIRES_OK(context, tensorflow::LookupResource(
                                    context, handles[k][i].scalar<tensorflow::ResourceHandle>()(),
                                    &owner));
        locks.emplace_back(*owner->mu());
        Tensor* tensor = owner->tensor();
        OP_REQUIRES(context,
                    tensor->dtype() == DT_FLOAT && tensor->shape() == gradients[i].shape(),
                    absl::InvalidArgumentError(absl::StrCat(
                        "variable ", i, " has shape ", tensor->shape().DebugString(),
                        ", its gradient ", gradients[i].shape().DebugString())));
        OP_REQUIRES_OK(context,
                       (tensorflow::PrepareToUpdateVariable<Eigen::ThreadPoolDevice, float>(
                           context, tensor, owner->copy_on_read_mode.load())));
        data[k] = tensor->flat<float>().data();
      }
      const float rate = rates.flat<float>()(i);
      variables.push_back({data[0], data[1], data[2], gradients[i].flat<float>().data(),
                           gradients[i].NumElements(), rate, rate * decays_[i]});
    }
    AdamStep(variables, correction, beta_1_, beta_2_, epsilon_, Threads(context));
  }

 private:
  float beta_1_, beta_2_, epsilon_;
  std::vector<float> decays_;
};

class FillTableOp : public OpKernel {
 public:
  explicit FillTableOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("value", &value_));
    OP_REQUIRES_OK(context, context->GetAttr("dtype", &dtype_));
  }

  void Compute(OpKernelContext* context) override {
    TensorShape shape;
    OP_REQUIRES_OK(context, tensorflow::tensor::MakeShape(context->input(0), &shape));
    Tensor* table;
    OP_REQUIRES_OK(context, context->allocate_output(0, shape, &table));
    const Storage storage = dtype_ == DT_FLOAT      ? Storage::kFloat32
                            : dtype_ == DT_BFLOAT16 ? Storage::kBfloat16
                                                    : Storage::kFloat16;
    FillTable(table->data(), table->NumElements(), storage == Storage::kFloat32 ? 4 : 2, value_,
              storage, Threads(context));
  }

 private:
  float value_;
  tensorflow::DataType dtype_;
};

REGISTER_OP("Lfm4adsUpdateRows")
    .Input("table: resource")
    .Input("slots: count * resource")
    .Input("indices: int64")
    .Input("values: float")
    .Input("learning_rate: float")
    .Attr("count: int >= 0")
    .Attr("sets: int >= 1")
    .Attr("per_element: list(bool)")
    .Attr("rule: {'adagrad', 'adam', 'ftrl', 'sgd'}")
    .Attr("options: list(float)")
    .Attr("l2: float")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext*) { return absl::OkStatus(); });
REGISTER_KERNEL_BUILDER(Name("Lfm4adsUpdateRows").Device(tensorflow::DEVICE_CPU), UpdateRowsOp);

REGISTER_OP("Lfm4adsSumDuplicates")
    .Input("indices: int64")
    .Input("values: float")
    .Output("rows: int64")
    .Output("sums: float")
    .SetShapeFn([](InferenceContext* context) {
      context->set_output(0, context->Vector(InferenceContext::kUnknownDim));
      context->set_output(1, context->Matrix(InferenceContext::kUnknownDim,
                                             context->Dim(context->input(1), 1)));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("Lfm4adsSumDuplicates").Device(tensorflow::DEVICE_CPU),
                        SumDuplicatesOp);

REGISTER_OP("Lfm4adsLookup")
    .Input("table: resource")
    .Input("ids: int64")
    .Output("values: float")
    .Output("rows: int64")
    .Attr("offsets: list(int)")
    .Attr("sizes: list(int)")
    .Attr("multiplier: int")
    .Attr("shift: int")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* context) {
      context->set_output(0, context->Matrix(InferenceContext::kUnknownDim,
                                             InferenceContext::kUnknownDim));
      context->set_output(1, context->Vector(InferenceContext::kUnknownDim));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("Lfm4adsLookup").Device(tensorflow::DEVICE_CPU), LookupOp);

REGISTER_OP("Lfm4adsColumnSums")
    .Input("x: float")
    .Output("sums: float")
    .SetShapeFn([](InferenceContext* context) {
      context->set_output(0, context->Vector(context->Dim(context->input(0), 1)));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("Lfm4adsColumnSums").Device(tensorflow::DEVICE_CPU), ColumnSumsOp);

REGISTER_OP("Lfm4adsBiasRelu")
    .Input("x: float")
    .Input("b: float")
    .Output("y: float")
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape);
REGISTER_KERNEL_BUILDER(Name("Lfm4adsBiasRelu").Device(tensorflow::DEVICE_CPU),
                        BiasActivationOp<BiasReluForward>);

REGISTER_OP("Lfm4adsBiasReluGrad")
    .Input("dy: float")
    .Input("y: float")
    .Output("dx: float")
    .Output("db: float")
    .SetShapeFn([](InferenceContext* context) {
      const auto y = context->input(1);
      context->set_output(0, y);
      if (!context->RankKnown(y)) {
        context->set_output(1, context->UnknownShape());
      } else if (context->Rank(y) == 3) {
        context->set_output(1, context->MakeShape({context->Dim(y, 0), context->MakeDim(1),
                                                   context->Dim(y, 2)}));
      } else {
        context->set_output(1, context->Vector(context->Dim(y, 1)));
      }
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("Lfm4adsBiasReluGrad").Device(tensorflow::DEVICE_CPU),
                        BiasReluGradOp);

REGISTER_OP("Lfm4adsBiasGelu")
    .Input("x: float")
    .Input("b: float")
    .Output("y: float")
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape);
REGISTER_KERNEL_BUILDER(Name("Lfm4adsBiasGelu").Device(tensorflow::DEVICE_CPU),
                        BiasActivationOp<BiasGeluForward>);

REGISTER_OP("Lfm4adsBiasGeluGrad")
    .Input("dy: float")
    .Input("x: float")
    .Input("b: float")
    .Output("dx: float")
    .Output("db: float")
    .SetShapeFn([](InferenceContext* context) {
      context->set_output(0, context->input(1));
      context->set_output(1, context->input(2));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("Lfm4adsBiasGeluGrad").Device(tensorflow::DEVICE_CPU),
                        BiasGeluGradOp);

REGISTER_OP("Lfm4adsAdamStep")
    .Input("variables: count * resource")
    .Input("first_moments: count * resource")
    .Input("second_moments: count * resource")
    .Input("gradients: count * float")
    .Input("learning_rates: float")
    .Input("correction: float")
    .Attr("count: int >= 1")
    .Attr("decays: list(float)")
    .Attr("beta_1: float")
    .Attr("beta_2: float")
    .Attr("epsilon: float")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext*) { return absl::OkStatus(); });
REGISTER_KERNEL_BUILDER(Name("Lfm4adsAdamStep").Device(tensorflow::DEVICE_CPU), AdamStepOp);

REGISTER_OP("Lfm4adsFillTable")
    .Input("shape: int64")
    .Output("table: dtype")
    .Attr("value: float")
    .Attr("dtype: {float, bfloat16, half}")
    .SetIsStateful()  // two calls are two buffers
    .SetShapeFn([](InferenceContext* context) {
      tensorflow::shape_inference::ShapeHandle shape;
      TF_RETURN_IF_ERROR(context->MakeShapeFromShapeTensor(0, &shape));
      context->set_output(0, shape);
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("Lfm4adsFillTable").Device(tensorflow::DEVICE_CPU), FillTableOp);

REGISTER_OP("Lfm4adsCross")
    .Input("x0: float")
    .Input("h: float")
    .Input("b: float")
    .Input("x: float")
    .Output("y: float")
    .SetShapeFn([](InferenceContext* context) {
      context->set_output(0, context->input(0));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("Lfm4adsCross").Device(tensorflow::DEVICE_CPU), CrossOp);

REGISTER_OP("Lfm4adsCrossGrad")
    .Input("dy: float")
    .Input("x0: float")
    .Input("h: float")
    .Input("b: float")
    .Attr("first: bool")
    .Output("dx0: float")
    .Output("dh: float")
    .Output("db: float")
    .SetShapeFn([](InferenceContext* context) {
      context->set_output(0, context->input(0));
      context->set_output(1, context->input(0));
      context->set_output(2, context->input(3));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("Lfm4adsCrossGrad").Device(tensorflow::DEVICE_CPU), CrossGradOp);

}  // namespace
}  // namespace lfm4ads
