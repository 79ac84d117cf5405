// Row-sparse updates of embedding tables: plain C++, no TensorFlow.
//
// This file is compiled for the machine's own instruction set; the glue to TensorFlow (ops.cc) is
// not, because TensorFlow's headers must be seen as TensorFlow itself was compiled.
#ifndef LFM4ADS_TF_KERNELS_ROWS_H_
#define LFM4ADS_TF_KERNELS_ROWS_H_

#include <cstdint>
#include <functional>
#include <vector>

namespace lfm4ads {

// Runs task(0) ... task(tasks - 1), in parallel where there are threads.
using ParallelFor = std::function<void(int tasks, const std::function<void(int)>& task)>;

// The gradient of a lookup: row ids[i] received grads[i * width .. + width).
struct Occurrences {
  const int64_t* ids;
  const float* grads;
  int64_t count;
  int64_t width;  // floats of one row, sets * dim
};

enum class Storage { kFloat32, kBfloat16, kFloat16 };

struct Table {
  void* data;
  Storage storage;
  int64_t rows;
  int sets;
  int dim;
};

// One optimizer slot: a float per element of a row, or one per row and set.
struct SlotArray {
  float* data;
  bool per_element;
};

enum class Rule { kAdagrad, kAdam, kFtrl, kSgd };

// Hyperparameters of a rule in the order of its Python twin (lfm4ads_tf/embeddings/rules).
struct RuleOptions {
  Rule rule;
  std::vector<float> values;
  float learning_rate;
  float l2;  // adds l2 * w to the gradient of touched rows and sets
};

// Sums the gradients of equal rows, in the order of their occurrence, and applies the rule once to
// each distinct row. A set of a row whose summed gradient is all zero keeps its bits.
void UpdateRows(const Occurrences& occurrences, const Table& table,
                const std::vector<SlotArray>& slots, const RuleOptions& options,
                const ParallelFor& parallel_for);

// Distinct rows and their summed gradients. The order of the rows is a function of the ids alone.
struct Summed {
  std::vector<int64_t> starts;  // of each partition's rows, partitions + 1 values
  std::vector<std::vector<int32_t>> rows;
  std::vector<std::vector<const float*>> sums;
  std::vector<std::vector<float>> owned;
};

void SumDuplicates(const Occurrences& occurrences, const ParallelFor& parallel_for,
                   Summed* summed);

// Copies a partition's sums to its place in contiguous outputs.
void WritePartition(const Summed& summed, int partition, int64_t width, int64_t* rows,
                    float* sums);

// y = x0 * (h + b) + x over (batch, width), b of (width).
void CrossForward(const float* x0, const float* h, const float* b, const float* x, int64_t batch,
                  int64_t width, float* y, const ParallelFor& parallel_for);

// dx0 = dy * (h + b), dh = dy * x0, db = sum of dh over the batch. Where x is x0 itself (`first`),
// its gradient dy is in dx0 too.
void CrossBackward(const float* dy, const float* x0, const float* h, const float* b, bool first,
                   int64_t batch, int64_t width, float* dx0, float* dh, float* db,
                   const ParallelFor& parallel_for);

// sums[k] = sum over the batch of x[i, k].
void ColumnSums(const float* x, int64_t batch, int64_t width, float* sums,
                const ParallelFor& parallel_for);

// y = max(x + b, 0) over (sets, batch, width), b of (sets, width); y may be x.
void BiasReluForward(const float* x, const float* b, int64_t sets, int64_t batch, int64_t width,
                     float* y, const ParallelFor& parallel_for);

// dx = dy times 1 where y > 0, else times 0; db = sum of dx over the batch, (sets, width); dx may be dy.
void BiasReluBackward(const float* dy, const float* y, int64_t sets, int64_t batch, int64_t width,
                      float* dx, float* db, const ParallelFor& parallel_for);

// y = h P(h) with h = x + b and P the normal distribution's function, over (sets, batch, width).
void BiasGeluForward(const float* x, const float* b, int64_t sets, int64_t batch, int64_t width,
                     float* y, const ParallelFor& parallel_for);

// dx = dy (P(h) + h p(h)) with p the normal density, db its sum over the batch.
void BiasGeluBackward(const float* dy, const float* x, const float* b, int64_t sets, int64_t batch,
                      int64_t width, float* dx, float* db, const ParallelFor& parallel_for);

// One variable of a dense Adam step; decay is learning_rate * weight_decay.
struct DenseVariable {
  float* w;
  float* m;
  float* v;
  const float* g;
  int64_t size;
  float learning_rate;
  float decay;
};

// w <- w - decay * w; m and v as in Adam; w <- w - rate * correction * m / (sqrt(v) + epsilon),
// over all variables in one pass.
void AdamStep(const std::vector<DenseVariable>& variables, float correction, float beta_1,
              float beta_2, float epsilon, const ParallelFor& parallel_for);

// Asks for huge pages under memory: reads then rarely miss the TLB. With `now` the pages that are
// there are joined at once, else as they are first written.
void AdviseHugePages(const void* data, int64_t bytes, bool now);

// Fills memory, which is asked to lie on huge pages: a row's read then rarely misses the TLB.
void FillTable(void* data, int64_t count, int element_bytes, float value, Storage storage,
               const ParallelFor& parallel_for);

// Where the ids of each field lie in a physical table: row = (multiplier * (offset + id) + shift)
// mod table_rows, and the missing id -1 is the id `size`.
struct FieldRows {
  std::vector<int64_t> offsets;
  std::vector<int64_t> sizes;
  int64_t multiplier;
  int64_t shift;
  int64_t table_rows;
};

// Physical rows of ids (batch, fields), and the rows themselves. Returns a field with an id outside
// [-1, size), or -1 where there is none.
int64_t LookupRows(const int64_t* ids, int64_t batch, const FieldRows& fields, const float* table,
                   int64_t width, int64_t* rows, float* values, const ParallelFor& parallel_for);

}  // namespace lfm4ads

#endif  // LFM4ADS_TF_KERNELS_ROWS_H_
