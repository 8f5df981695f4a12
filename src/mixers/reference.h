// Vectors and square matrices for the double references, to write them like the formulas.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "mixers/cpu_vector.h"
#include "mixers/features.h"
#include "mixers/mixer.h"

namespace vla_bench::mixers::reference {

using Vec = std::vector<double>;

inline Vec zeros(Index size) { return Vec(static_cast<std::size_t>(size), 0.0); }

/// Channels of one token and head.
inline Vec get(HeadView<const double> view, Index row, Index head, Index width) {
  const double* from = view.at(row, head);
  return Vec(from, from + width);
}
inline void put(HeadView<double> view, Index row, Index head, const Vec& values) {
  std::copy(values.begin(), values.end(), view.at(row, head));
}

inline double dot(const Vec& a, const Vec& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}
/// y += scale x
inline void add(Vec& y, const Vec& x, double scale = 1.0) {
  for (std::size_t i = 0; i < y.size(); ++i) y[i] += scale * x[i];
}
inline Vec scaled(const Vec& x, double scale) {
  Vec y = zeros(static_cast<Index>(x.size()));
  add(y, x, scale);
  return y;
}

/// A d x d matrix, value rows and key columns.
struct Square {
  explicit Square(Index size) : d(static_cast<std::size_t>(size)), values(zeros(size * size)) {}
  double& operator()(std::size_t i, std::size_t j) { return values[i * d + j]; }
  double operator()(std::size_t i, std::size_t j) const { return values[i * d + j]; }

  std::size_t d;
  Vec values;
};

/// S x
inline Vec times(const Square& s, const Vec& x) {
  Vec y(s.d, 0.0);
  for (std::size_t i = 0; i < s.d; ++i) {
    for (std::size_t j = 0; j < s.d; ++j) y[i] += s(i, j) * x[j];
  }
  return y;
}
/// S^T x
inline Vec transposed_times(const Square& s, const Vec& x) {
  Vec y(s.d, 0.0);
  for (std::size_t i = 0; i < s.d; ++i) {
    for (std::size_t j = 0; j < s.d; ++j) y[j] += s(i, j) * x[i];
  }
  return y;
}
/// S += scale a b^T
inline void add_outer(Square& s, const Vec& a, const Vec& b, double scale = 1.0) {
  for (std::size_t i = 0; i < s.d; ++i) {
    for (std::size_t j = 0; j < s.d; ++j) s(i, j) += scale * a[i] * b[j];
  }
}

/// x / max(|x|, kUnitFloor)
inline Vec unit(Vec x) {
  double* values = x.data();
  make_unit(CpuVector<double>{{static_cast<Index>(x.size())}}, values);
  return x;
}
/// Returns dx from dy for y = unit(x).
inline Vec unit_backward(const Vec& x, Vec dy) {
  Vec y = x;
  double *values = y.data(), *gradient = dy.data();
  const CpuVector<double> vector{{static_cast<Index>(x.size())}};
  const double length = make_unit(vector, values);
  mixers::unit_backward(vector, values, length, gradient);
  return dy;
}

}  // namespace vla_bench::mixers::reference
