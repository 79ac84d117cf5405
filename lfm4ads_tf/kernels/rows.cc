#include "rows.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace lfm4ads {
namespace {

constexpr int kChunks = 8;  // a constant, so that no result depends on the number of threads
constexpr int64_t kPartitionFloats = 1 << 18;  // a partition's sums then stay in the L2 cache
constexpr int kPrefetch = 16;  // rows of a gather ahead
constexpr int kAhead = 32;     // rows of an update ahead
constexpr int kMaxSlots = 3;

struct Occurrence {
  int32_t row;
  int32_t at;
};

inline uint32_t Mix(int32_t row) { return static_cast<uint32_t>(row) * 2654435769u; }

// Occurrences grouped by a hash of their row, in their own order inside each partition.
struct Partitions {
  std::vector<Occurrence> items;
  std::vector<int64_t> starts;
};

Partitions Partition(const Occurrences& in, const ParallelFor& parallel_for) {
  int bits = 0;
  while (bits < 8 && (in.count >> bits) * in.width > kPartitionFloats) ++bits;
  const int partitions = 1 << bits;
  const int shift = 32 - bits;
  auto of = [&](int32_t row) { return bits == 0 ? 0 : static_cast<int>(Mix(row) >> shift); };
  std::vector<int64_t> counts(static_cast<size_t>(kChunks) * partitions, 0);
  auto bounds = [&](int chunk) { return in.count * chunk / kChunks; };
  parallel_for(kChunks, [&](int chunk) {
    int64_t* mine = &counts[static_cast<size_t>(chunk) * partitions];
    for (int64_t i = bounds(chunk); i < bounds(chunk + 1); ++i) {
      ++mine[of(static_cast<int32_t>(in.ids[i]))];
    }
  });
  Partitions out;
  out.starts.resize(partitions + 1);
  int64_t total = 0;
  for (int p = 0; p < partitions; ++p) {
    out.starts[p] = total;
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      int64_t& count = counts[static_cast<size_t>(chunk) * partitions + p];
      const int64_t here = count;
      count = total;
      total += here;
    }
  }
  out.starts[partitions] = total;
  out.items.resize(total);
  parallel_for(kChunks, [&](int chunk) {
    int64_t* next = &counts[static_cast<size_t>(chunk) * partitions];
    for (int64_t i = bounds(chunk); i < bounds(chunk + 1); ++i) {
      const int32_t row = static_cast<int32_t>(in.ids[i]);
      out.items[next[of(row)]++] = {row, static_cast<int32_t>(i)};
    }
  });
  return out;
}

inline void PrefetchLines(const void* data, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) {
    __builtin_prefetch(static_cast<const char*>(data) + at);
  }
}

// Distinct rows of one partition; a row that occurs once points at its gradient where it is.
void SumPartition(const Occurrences& in, const Occurrence* items, int64_t count,
                  std::vector<int32_t>* rows, std::vector<const float*>* sums,
                  std::vector<float>* owned) {
  int64_t capacity = 16;
  while (capacity < 2 * count) capacity *= 2;
  std::vector<int64_t> table(capacity, -1);  // row << 32 | index of the row in `rows`
  rows->clear();
  sums->clear();
  rows->reserve(count);
  sums->reserve(count);
  std::vector<int32_t> slot_of(count);
  std::vector<int32_t> repeats;  // of each distinct row, whether it occurs again
  repeats.reserve(count);
  int64_t repeated = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t row = items[i].row;
    // the low bits of the product carry what the partition's number does not
    uint64_t at = (Mix(row) * 0x9E3779B97F4A7C15ull >> 20) & (capacity - 1);
    int32_t index;
    for (;;) {
      const int64_t entry = table[at];
      if (entry < 0) {
        index = static_cast<int32_t>(rows->size());
        table[at] = (static_cast<int64_t>(row) << 32) | index;
        rows->push_back(row);
        sums->push_back(in.grads + static_cast<int64_t>(items[i].at) * in.width);
        repeats.push_back(-1);
        break;
      }
      if (static_cast<int32_t>(entry >> 32) == row) {
        index = static_cast<int32_t>(entry & 0xffffffff);
        if (repeats[index] < 0) repeats[index] = static_cast<int32_t>(repeated++);
        break;
      }
      at = (at + 1) & (capacity - 1);
    }
    slot_of[i] = index;
  }
  if (repeated == 0) return;
  owned->resize(repeated * in.width);
  std::vector<bool> begun(repeated, false);
  for (int64_t i = 0; i < count; ++i) {
    if (i + kPrefetch < count) {
      PrefetchLines(in.grads + static_cast<int64_t>(items[i + kPrefetch].at) * in.width,
                    in.width * 4);
    }
    const int32_t slot = repeats[slot_of[i]];
    if (slot < 0) continue;
    float* sum = owned->data() + static_cast<int64_t>(slot) * in.width;
    const float* grad = in.grads + static_cast<int64_t>(items[i].at) * in.width;
    if (begun[slot]) {
      for (int64_t k = 0; k < in.width; ++k) sum[k] += grad[k];
    } else {
      std::memcpy(sum, grad, in.width * sizeof(float));
      begun[slot] = true;
    }
  }
  for (size_t u = 0; u < rows->size(); ++u) {
    if (repeats[u] >= 0) (*sums)[u] = owned->data() + static_cast<int64_t>(repeats[u]) * in.width;
  }
}

inline float FromBfloat16(uint16_t value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

inline uint16_t ToBfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;  // NaN
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);  // nearest even
}

void Load(const void* data, Storage storage, int64_t offset, int dim, float* out) {
  if (storage == Storage::kBfloat16) {
    const uint16_t* from = static_cast<const uint16_t*>(data) + offset;
    for (int k = 0; k < dim; ++k) out[k] = FromBfloat16(from[k]);
  } else {
    const _Float16* from = static_cast<const _Float16*>(data) + offset;
    for (int k = 0; k < dim; ++k) out[k] = static_cast<float>(from[k]);
  }
}

void Store(void* data, Storage storage, int64_t offset, int dim, const float* in) {
  if (storage == Storage::kBfloat16) {
    uint16_t* to = static_cast<uint16_t*>(data) + offset;
    for (int k = 0; k < dim; ++k) to[k] = ToBfloat16(in[k]);
  } else {
    _Float16* to = static_cast<_Float16*>(data) + offset;
    for (int k = 0; k < dim; ++k) to[k] = static_cast<_Float16>(in[k]);
  }
}

float LogOf(float beta) { return static_cast<float>(std::log(static_cast<double>(beta))); }

// The rules, each on one set of one row; lfm4ads_tf/embeddings/rules has the formulas and sources.
struct Adagrad {
  float rate, epsilon;
  bool row_wise;
  template <int kDim>
  void Step(float* __restrict w, const float* __restrict g, float* const* slot, int any) const {
    const int dim = kDim > 0 ? kDim : any;
    float* __restrict a = slot[0];
    if (row_wise) {
      float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
      for (int k = 0; k < dim; ++k) squares += g[k] * g[k];
      a[0] += squares / static_cast<float>(dim);
      const float divisor = std::sqrt(a[0]) + epsilon;
      for (int k = 0; k < dim; ++k) w[k] -= rate * g[k] / divisor;
    } else {
      for (int k = 0; k < dim; ++k) {
        const float sum = a[k] + g[k] * g[k];
        a[k] = sum;
        w[k] -= rate * g[k] / (std::sqrt(sum) + epsilon);
      }
    }
  }
};

struct Adam {
  float rate, beta_1, beta_2, epsilon, weight_decay, log_1, log_2;
  template <int kDim>
  void Step(float* __restrict w, const float* __restrict g, float* const* slot, int any) const {
    const int dim = kDim > 0 ? kDim : any;
    float* __restrict m = slot[0];
    float* __restrict v = slot[1];
    float* t = slot[2];
    t[0] += 1.0f;
    const float correction_1 = -std::expm1(t[0] * log_1);
    const float correction_2 = -std::expm1(t[0] * log_2);
    const float size = rate * std::sqrt(correction_2) / correction_1;
    const float decay = rate * weight_decay;
    const float rest_1 = 1.0f - beta_1, rest_2 = 1.0f - beta_2;
    for (int k = 0; k < dim; ++k) {
      m[k] = beta_1 * m[k] + rest_1 * g[k];
      v[k] = beta_2 * v[k] + rest_2 * (g[k] * g[k]);
      const float kept = w[k] - decay * w[k];
      w[k] = kept - size * m[k] / (std::sqrt(v[k]) + epsilon);
    }
  }
};

struct Ftrl {
  float rate, l1, l2, power, beta;
  float Power(float x) const { return power == -0.5f ? std::sqrt(x) : std::pow(x, -power); }
  template <int kDim>
  void Step(float* __restrict w, const float* __restrict g, float* const* slot, int any) const {
    const int dim = kDim > 0 ? kDim : any;
    float* __restrict a = slot[0];
    float* __restrict z = slot[1];
    for (int k = 0; k < dim; ++k) {
      const float grown = a[k] + g[k] * g[k];
      const float root = Power(grown), before = Power(a[k]);
      z[k] += g[k] - (root - before) / rate * w[k];
      const float curvature = (root + beta) / rate + 2.0f * l2;
      w[k] = (std::min(std::max(z[k], -l1), l1) - z[k]) / curvature;
      a[k] = grown;
    }
  }
};

struct Sgd {
  float rate, momentum;
  bool nesterov;
  template <int kDim>
  void Step(float* __restrict w, const float* __restrict g, float* const* slot, int any) const {
    const int dim = kDim > 0 ? kDim : any;
    if (momentum == 0.0f) {
      for (int k = 0; k < dim; ++k) w[k] -= rate * g[k];
      return;
    }
    float* __restrict m = slot[0];
    for (int k = 0; k < dim; ++k) {
      m[k] = momentum * m[k] + g[k];
      w[k] -= rate * (nesterov ? g[k] + momentum * m[k] : m[k]);
    }
  }
};

typedef uint32_t __attribute__((may_alias)) Bits;

template <int kDim>
inline bool AllZero(const float* g, int any) {
  const int dim = kDim > 0 ? kDim : any;
  const Bits* bits = reinterpret_cast<const Bits*>(g);
  uint32_t seen = 0;
#pragma omp simd reduction(| : seen)
  for (int k = 0; k < dim; ++k) seen |= bits[k];
  return (seen << 1) == 0;  // -0.0 is zero
}

// Applies a rule to distinct rows whose gradients are summed. Common widths are known to the
// compiler (kDim), others are not (0); narrow tables are computed in float32.
template <int kDim, bool kNarrow, typename R>
void Apply(const R& rule, const std::vector<int32_t>& rows, const std::vector<const float*>& sums,
           const Table& table, const std::vector<SlotArray>& slots, float l2) {
  const int dim = kDim > 0 ? kDim : table.dim, sets = table.sets;
  const int64_t width = static_cast<int64_t>(sets) * dim;
  const int64_t count = static_cast<int64_t>(rows.size());
  const int slot_count = static_cast<int>(slots.size());
  float* states[kMaxSlots] = {};
  int64_t per_row[kMaxSlots] = {}, per_set[kMaxSlots] = {};  // floats
  for (int s = 0; s < slot_count; ++s) {
    states[s] = slots[s].data;
    per_set[s] = slots[s].per_element ? dim : 1;
    per_row[s] = per_set[s] * sets;
  }
  char* data = static_cast<char*>(table.data);
  const int64_t row_bytes = width * (kNarrow ? 2 : 4);
  std::vector<float> weights(dim), gradient(dim);
  for (int64_t u = 0; u < count; ++u) {
    if (u + kAhead < count) {
      const int64_t row = rows[u + kAhead];
      PrefetchLines(data + row * row_bytes, row_bytes);
      for (int s = 0; s < slot_count; ++s) {
        PrefetchLines(states[s] + row * per_row[s], per_row[s] * 4);
      }
      PrefetchLines(sums[u + kAhead], width * 4);
    }
    const int64_t row = rows[u];
    for (int set = 0; set < sets; ++set) {
      const float* g = sums[u] + static_cast<int64_t>(set) * dim;
      if (AllZero<kDim>(g, dim)) continue;
      const int64_t offset = row * width + static_cast<int64_t>(set) * dim;
      float* w = kNarrow ? weights.data() : static_cast<float*>(table.data) + offset;
      if (kNarrow) Load(table.data, table.storage, offset, dim, w);
      if (l2 != 0.0f) {
        for (int k = 0; k < dim; ++k) gradient[k] = g[k] + l2 * w[k];
        g = gradient.data();
      }
      float* places[kMaxSlots];
      for (int s = 0; s < kMaxSlots; ++s) places[s] = states[s] + row * per_row[s] + set * per_set[s];
      rule.template Step<kDim>(w, g, places, dim);
      if (kNarrow) Store(table.data, table.storage, offset, dim, w);
    }
  }
}

template <int kDim, typename R>
void ApplyStored(const R& rule, const std::vector<int32_t>& rows,
                 const std::vector<const float*>& sums, const Table& table,
                 const std::vector<SlotArray>& slots, float l2) {
  if (table.storage == Storage::kFloat32) {
    Apply<kDim, false>(rule, rows, sums, table, slots, l2);
  } else {
    Apply<kDim, true>(rule, rows, sums, table, slots, l2);
  }
}

template <typename R>
void Update(const R& rule, const Occurrences& in, const Table& table,
            const std::vector<SlotArray>& slots, float l2, const ParallelFor& parallel_for) {
  const Partitions parts = Partition(in, parallel_for);
  parallel_for(static_cast<int>(parts.starts.size()) - 1, [&](int p) {
    std::vector<int32_t> rows;
    std::vector<const float*> sums;
    std::vector<float> owned;
    SumPartition(in, parts.items.data() + parts.starts[p], parts.starts[p + 1] - parts.starts[p],
                 &rows, &sums, &owned);
    switch (table.dim) {
      case 8:
        return ApplyStored<8>(rule, rows, sums, table, slots, l2);
      case 16:
        return ApplyStored<16>(rule, rows, sums, table, slots, l2);
      case 32:
        return ApplyStored<32>(rule, rows, sums, table, slots, l2);
      case 64:
        return ApplyStored<64>(rule, rows, sums, table, slots, l2);
      default:
        return ApplyStored<0>(rule, rows, sums, table, slots, l2);
    }
  });
}

}  // namespace

void UpdateRows(const Occurrences& occurrences, const Table& table,
                const std::vector<SlotArray>& slots, const RuleOptions& options,
                const ParallelFor& parallel_for) {
  const std::vector<float>& o = options.values;
  const float rate = options.learning_rate;
  switch (options.rule) {
    case Rule::kAdagrad:
      return Update(Adagrad{rate, o[0], o[1] != 0.0f}, occurrences, table, slots, options.l2,
                    parallel_for);
    case Rule::kAdam:
      return Update(Adam{rate, o[0], o[1], o[2], o[3], LogOf(o[0]), LogOf(o[1])}, occurrences,
                    table, slots, options.l2, parallel_for);
    case Rule::kFtrl:
      return Update(Ftrl{rate, o[0], o[1], o[2], o[3]}, occurrences, table, slots, options.l2,
                    parallel_for);
    case Rule::kSgd:
      return Update(Sgd{rate, o[0], o[1] != 0.0f}, occurrences, table, slots, options.l2,
                    parallel_for);
  }
}

void SumDuplicates(const Occurrences& occurrences, const ParallelFor& parallel_for,
                   Summed* summed) {
  const Partitions parts = Partition(occurrences, parallel_for);
  const int partitions = static_cast<int>(parts.starts.size()) - 1;
  summed->rows.resize(partitions);
  summed->sums.resize(partitions);
  summed->owned.resize(partitions);
  parallel_for(partitions, [&](int p) {
    SumPartition(occurrences, parts.items.data() + parts.starts[p],
                 parts.starts[p + 1] - parts.starts[p], &summed->rows[p], &summed->sums[p],
                 &summed->owned[p]);
  });
  summed->starts.assign(1, 0);
  for (const auto& rows : summed->rows) {
    summed->starts.push_back(summed->starts.back() + static_cast<int64_t>(rows.size()));
  }
}

void WritePartition(const Summed& summed, int partition, int64_t width, int64_t* rows,
                    float* sums) {
  const int64_t start = summed.starts[partition];
  const auto& from = summed.rows[partition];
  for (size_t u = 0; u < from.size(); ++u) {
    rows[start + u] = from[u];
    std::memcpy(sums + (start + u) * width, summed.sums[partition][u], width * sizeof(float));
  }
}

namespace {

// The sums of the chunks' sums (sets * kChunks, width) of each set, (sets, width).
void AddChunks(const std::vector<float>& partial, int64_t sets, int64_t width, float* sums) {
  for (int64_t set = 0; set < sets; ++set) {
    for (int64_t k = 0; k < width; ++k) {
      float total = 0.0f;
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        total += partial[(set * kChunks + chunk) * width + k];
      }
      sums[set * width + k] = total;
    }
  }
}

}  // namespace

void CrossForward(const float* x0, const float* h, const float* b, const float* x, int64_t batch,
                  int64_t width, float* y, const ParallelFor& parallel_for) {
  parallel_for(kChunks, [&](int chunk) {
    for (int64_t i = batch * chunk / kChunks; i < batch * (chunk + 1) / kChunks; ++i) {
      const int64_t o = i * width;
      for (int64_t k = 0; k < width; ++k) y[o + k] = x0[o + k] * (h[o + k] + b[k]) + x[o + k];
    }
  });
}

void CrossBackward(const float* dy, const float* x0, const float* h, const float* b, bool first,
                   int64_t batch, int64_t width, float* dx0, float* dh, float* db,
                   const ParallelFor& parallel_for) {
  std::vector<float> sums(static_cast<size_t>(kChunks) * width, 0.0f);
  const float through = first ? 1.0f : 0.0f;
  parallel_for(kChunks, [&](int chunk) {
    float* sum = &sums[static_cast<size_t>(chunk) * width];
    for (int64_t i = batch * chunk / kChunks; i < batch * (chunk + 1) / kChunks; ++i) {
      const int64_t o = i * width;
      for (int64_t k = 0; k < width; ++k) {
        const float g = dy[o + k];
        const float d = g * x0[o + k];
        dx0[o + k] = g * (h[o + k] + b[k]) + through * g;
        dh[o + k] = d;
        sum[k] += d;
      }
    }
  });
  AddChunks(sums, 1, width, db);
}

void ColumnSums(const float* x, int64_t batch, int64_t width, float* sums,
                const ParallelFor& parallel_for) {
  std::vector<float> partial(static_cast<size_t>(kChunks) * width, 0.0f);
  parallel_for(kChunks, [&](int chunk) {
    float* sum = &partial[static_cast<size_t>(chunk) * width];
    for (int64_t i = batch * chunk / kChunks; i < batch * (chunk + 1) / kChunks; ++i) {
      const float* row = x + i * width;
      for (int64_t k = 0; k < width; ++k) sum[k] += row[k];
    }
  });
  AddChunks(partial, 1, width, sums);
}

void BiasReluForward(const float* x, const float* b, int64_t sets, int64_t batch, int64_t width,
                     float* y, const ParallelFor& parallel_for) {
  parallel_for(static_cast<int>(sets) * kChunks, [&](int task) {
    const int64_t set = task / kChunks, chunk = task % kChunks;
    const float* __restrict bias = b + set * width;
    for (int64_t i = batch * chunk / kChunks; i < batch * (chunk + 1) / kChunks; ++i) {
      const int64_t at = (set * batch + i) * width;
#pragma omp simd
      for (int64_t k = 0; k < width; ++k) {
        const float value = x[at + k] + bias[k];
        y[at + k] = value < 0.0f ? 0.0f : value;  // NaN stays what it is
      }
    }
  });
}

void BiasReluBackward(const float* dy, const float* y, int64_t sets, int64_t batch, int64_t width,
                      float* dx, float* db, const ParallelFor& parallel_for) {
  std::vector<float> partial(static_cast<size_t>(sets) * kChunks * width, 0.0f);
  parallel_for(static_cast<int>(sets) * kChunks, [&](int task) {
    const int64_t set = task / kChunks, chunk = task % kChunks;
    float* __restrict sum = &partial[static_cast<size_t>(task) * width];
    for (int64_t i = batch * chunk / kChunks; i < batch * (chunk + 1) / kChunks; ++i) {
      const int64_t at = (set * batch + i) * width;
#pragma omp simd
      for (int64_t k = 0; k < width; ++k) {
        // a product, as TensorFlow's: what is not finite stays so
        const float value = dy[at + k] * (y[at + k] > 0.0f ? 1.0f : 0.0f);
        dx[at + k] = value;
        sum[k] += value;
      }
    }
  });
  AddChunks(partial, sets, width, db);
}

namespace {

// exp(z) for z <= 0: 2^n e^r with |r| <= ln(2) / 2, e^r by its Taylor series. Straight code, which
// the compiler turns into vector instructions; the relative error is near 1e-7.
inline float ExpOfNegative(float z) {
  z = z < -87.0f ? -87.0f : z;  // NaN stays what it is
  const float n = std::rint(z * 1.44269504f);
  const float r = (z - n * 0.693359375f) + n * 2.12194440e-4f;  // ln(2) in two parts
  const float series =
      1.0f +
      r * (1.0f +
           r * (0.5f + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720))))));
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof(power));
  return series * power;
}

// The normal distribution's function of h, given exp(-h^2 / 2). Abramowitz and Stegun, 7.1.26, is
// off by at most 1.5e-7; below zero it is the small tail itself, without a difference of near ones.
inline float NormalOf(float h, float density) {
  const float size = h < 0.0f ? -h : h;
  const float t = 1.0f / (1.0f + 0.231641888f * size);  // 0.3275911 / sqrt(2)
  const float tail =
      0.5f * density * t *
      (0.254829592f +
       t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
  return h < 0.0f ? tail : 1.0f - tail;
}

}  // namespace

void BiasGeluForward(const float* x, const float* b, int64_t sets, int64_t batch, int64_t width,
                     float* y, const ParallelFor& parallel_for) {
  parallel_for(static_cast<int>(sets) * kChunks, [&](int task) {
    const int64_t set = task / kChunks, chunk = task % kChunks;
    const float* __restrict bias = b + set * width;
    for (int64_t i = batch * chunk / kChunks; i < batch * (chunk + 1) / kChunks; ++i) {
      const int64_t at = (set * batch + i) * width;
#pragma omp simd
      for (int64_t k = 0; k < width; ++k) {
        const float h = x[at + k] + bias[k];
        y[at + k] = h * NormalOf(h, ExpOfNegative(-0.5f * h * h));
      }
    }
  });
}

void BiasGeluBackward(const float* dy, const float* x, const float* b, int64_t sets, int64_t batch,
                      int64_t width, float* dx, float* db, const ParallelFor& parallel_for) {
  std::vector<float> partial(static_cast<size_t>(sets) * kChunks * width, 0.0f);
  parallel_for(static_cast<int>(sets) * kChunks, [&](int task) {
    const int64_t set = task / kChunks, chunk = task % kChunks;
    const float* __restrict bias = b + set * width;
    float* __restrict sum = &partial[static_cast<size_t>(task) * width];
    for (int64_t i = batch * chunk / kChunks; i < batch * (chunk + 1) / kChunks; ++i) {
      const int64_t at = (set * batch + i) * width;
#pragma omp simd
      for (int64_t k = 0; k < width; ++k) {
        const float h = x[at + k] + bias[k];
        const float density = ExpOfNegative(-0.5f * h * h);
        const float slope = NormalOf(h, density) + h * 0.398942280f * density;
        const float value = dy[at + k] * slope;
        dx[at + k] = value;
        sum[k] += value;
      }
    }
  });
  AddChunks(partial, sets, width, db);
}

void AdamStep(const std::vector<DenseVariable>& variables, float correction, float beta_1,
              float beta_2, float epsilon, const ParallelFor& parallel_for) {
  constexpr int64_t kPiece = 1 << 14;
  std::vector<std::pair<const DenseVariable*, int64_t>> pieces;
  for (const DenseVariable& variable : variables) {
    for (int64_t at = 0; at < variable.size; at += kPiece) pieces.emplace_back(&variable, at);
  }
  const float rest_1 = 1.0f - beta_1, rest_2 = 1.0f - beta_2;
  parallel_for(static_cast<int>(pieces.size()), [&](int i) {
    const DenseVariable& d = *pieces[i].first;
    const int64_t begin = pieces[i].second, end = std::min(begin + kPiece, d.size);
    const float step = d.learning_rate * correction, decay = d.decay;
    float *__restrict w = d.w, *__restrict m = d.m, *__restrict v = d.v;
    const float* __restrict g = d.g;
    for (int64_t k = begin; k < end; ++k) {
      m[k] = beta_1 * m[k] + rest_1 * g[k];
      v[k] = beta_2 * v[k] + rest_2 * (g[k] * g[k]);
      w[k] = (w[k] - decay * w[k]) - step * m[k] / (std::sqrt(v[k]) + epsilon);
    }
  });
}

void AdviseHugePages(const void* data, int64_t bytes, bool now) {
  constexpr uintptr_t kHuge = uintptr_t{1} << 21;
  constexpr int kCollapse = 25;  // MADV_COLLAPSE, which older C libraries do not name
  const uintptr_t first = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = (first + kHuge - 1) & ~(kHuge - 1);
  const uintptr_t end = (first + bytes) & ~(kHuge - 1);
  if (begin >= end) return;
  // only advice: small pages work as well
  (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  if (now) (void)madvise(reinterpret_cast<void*>(begin), end - begin, kCollapse);
}

void FillTable(void* data, int64_t count, int element_bytes, float value, Storage storage,
               const ParallelFor& parallel_for) {
  AdviseHugePages(data, count * element_bytes, false);
  constexpr int64_t kPiece = 1 << 22;
  parallel_for(static_cast<int>((count + kPiece - 1) / kPiece), [&](int i) {
    const int64_t from = i * kPiece, to = std::min(from + kPiece, count);
    if (storage == Storage::kFloat32) {
      std::fill(static_cast<float*>(data) + from, static_cast<float*>(data) + to, value);
    } else {
      uint16_t bits = ToBfloat16(value);
      if (storage == Storage::kFloat16) {
        const _Float16 half = static_cast<_Float16>(value);
        std::memcpy(&bits, &half, 2);
      }
      std::fill(static_cast<uint16_t*>(data) + from, static_cast<uint16_t*>(data) + to, bits);
    }
  });
}

int64_t LookupRows(const int64_t* ids, int64_t batch, const FieldRows& fields, const float* table,
                   int64_t width, int64_t* rows, float* values, const ParallelFor& parallel_for) {
  const int64_t count = static_cast<int64_t>(fields.offsets.size());
  const uint64_t modulus = fields.table_rows;
  std::vector<int64_t> wrong(kChunks, -1);
  parallel_for(kChunks, [&](int chunk) {
    const int64_t begin = batch * chunk / kChunks, end = batch * (chunk + 1) / kChunks;
    for (int64_t b = begin; b < end; ++b) {
      for (int64_t f = 0; f < count; ++f) {
        const int64_t size = fields.sizes[f];
        int64_t id = ids[b * count + f];
        if (id < -1 || id >= size) {
          wrong[chunk] = f;
          id = -1;
        }
        const uint64_t stacked = fields.offsets[f] + (id < 0 ? size : id);
        rows[b * count + f] = (stacked * fields.multiplier + fields.shift) % modulus;
      }
    }
    const int64_t last = end * count;
    for (int64_t i = begin * count; i < last; ++i) {
      const float* ahead = table + rows[std::min(i + kPrefetch, last - 1)] * width;
      for (int64_t k = 0; k < width; k += 16) __builtin_prefetch(ahead + k);
      const float* from = table + rows[i] * width;
      float* to = values + i * width;
      for (int64_t k = 0; k < width; ++k) to[k] = from[k];
    }
  });
  return *std::max_element(wrong.begin(), wrong.end());
}

}  // namespace lfm4ads
