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

/// A matrix; a state has value rows and key columns.
struct Grid {
  Grid(Index row_count, Index column_count)
      : rows(static_cast<std::size_t>(row_count)),
        columns(static_cast<std::size_t>(column_count)),
        values(zeros(row_count * column_count)) {}
  double& operator()(std::size_t i, std::size_t j) { return values[i * columns + j]; }
  double operator()(std::size_t i, std::size_t j) const { return values[i * columns + j]; }

  std::size_t rows, columns;
  Vec values;
};
/// A d x d matrix.
struct Square : Grid {
  explicit Square(Index size) : Grid(size, size), d(rows) {}
  std::size_t d;
};

/// S x
inline Vec times(const Grid& s, const Vec& x) {
  Vec y(s.rows, 0.0);
  for (std::size_t i = 0; i < s.rows; ++i) {
    for (std::size_t j = 0; j < s.columns; ++j) y[i] += s(i, j) * x[j];
  }
  return y;
}
/// S^T x
inline Vec transposed_times(const Grid& s, const Vec& x) {
  Vec y(s.columns, 0.0);
  for (std::size_t i = 0; i < s.rows; ++i) {
    for (std::size_t j = 0; j < s.columns; ++j) y[j] += s(i, j) * x[i];
  }
  return y;
}
/// S += scale a b^T
inline void add_outer(Grid& s, const Vec& a, const Vec& b, double scale = 1.0) {
  for (std::size_t i = 0; i < s.rows; ++i) {
    for (std::size_t j = 0; j < s.columns; ++j) s(i, j) += scale * a[i] * b[j];
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
