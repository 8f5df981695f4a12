#define EIGEN_DONT_PARALLELIZE
#include "experiments/jacobian_matrix.h"

#include <fmt/format.h>

#include <Eigen/SVD>
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"

namespace vla_bench {
namespace {

double dot(const std::vector<double>& x, const std::vector<double>& y) {
  double sum = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}

}  // namespace

double rank_one_spectral_norm(const std::vector<double>& k, const std::vector<double>& a) {
  const double c = dot(k, a);
  if (k.size() == 1) return std::abs(1.0 - c);  // no second direction in the plane
  const double p = std::sqrt(dot(k, k) * dot(a, a));
  // 4 - 4c + p^2 >= (2 - p)^2 because c <= p; only rounding can make it negative.
  const double root = std::sqrt(std::max(4.0 - 4.0 * c + p * p, 0.0));
  return std::sqrt(0.5 * (2.0 - 2.0 * c + p * p + p * root));
}

ClosedForm closed_form(const StepJacobian& step) {
  const double norm = rank_one_spectral_norm(step.k, step.a);
  if (step.decay.empty()) return {norm, true};
  const auto [least, largest] = std::ranges::minmax(step.decay);
  return {largest * norm, least == largest};
}

double cosine(const std::vector<double>& k, const std::vector<double>& a) {
  const double lengths = std::sqrt(dot(k, k) * dot(a, a));
  return lengths > 0.0 ? dot(k, a) / lengths : std::numeric_limits<double>::quiet_NaN();
}

double spectral_norm(const std::vector<double>& matrix, Index d) {
  const auto finite = [](double value) { return std::isfinite(value); };
  if (!std::all_of(matrix.begin(), matrix.end(), finite)) {
    return std::numeric_limits<double>::infinity();
  }
  using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::MatrixXd values = Eigen::Map<const RowMajor>(matrix.data(), d, d);
  return Eigen::JacobiSVD<Eigen::MatrixXd, Eigen::NoQRPreconditioner>(values).singularValues()(0);
}

double checked_spectral_norm(const std::vector<double>& matrix, const ClosedForm& closed_form) {
  // Both ways are exact up to rounding (about d 2e-16): 1e-6 leaves room for any d and still
  // catches a wrong k or a.
  constexpr double kAgreement = 1e-6;
  const auto d = static_cast<Index>(std::llround(std::sqrt(static_cast<double>(matrix.size()))));
  const double by_svd = spectral_norm(matrix, d);
  const double above = by_svd - closed_form.norm;
  const double error = closed_form.is_exact ? std::abs(above) : above;
  // Written so that NaN fails too.
  if (!(error <= kAgreement * std::max(1.0, closed_form.norm))) {
    throw RunError(
        fmt::format("jacobian: sigma_max is {:.9g} by SVD and {} {:.9g} by the closed form; they "
                    "must agree to {:g}",
                    by_svd, closed_form.is_exact ? "" : "at most ", closed_form.norm, kAgreement));
  }
  return by_svd;
}

std::vector<double> step_matrix(const StepJacobian& step) {
  const std::size_t d = step.k.size();
  std::vector<double> matrix(d * d);
  for (std::size_t i = 0; i < d; ++i) {
    const double decay = step.decay.empty() ? 1.0 : step.decay[i];
    for (std::size_t j = 0; j < d; ++j) {
      matrix[i * d + j] = decay * ((i == j ? 1.0 : 0.0) - step.k[i] * step.a[j]);
    }
  }
  return matrix;
}

JacobianProduct::JacobianProduct(Index d) : d_(d), values_(static_cast<std::size_t>(d * d), 0.0) {
  for (Index i = 0; i < d; ++i) values_[static_cast<std::size_t>(i * d + i)] = 1.0;
}

void JacobianProduct::multiply(const StepJacobian& step) {
  const std::vector<double>&k = step.k, &a = step.a;
  for (Index i = 0; i < d_; ++i) {
    double* row = values_.data() + i * d_;
    if (!step.decay.empty()) {
#pragma omp simd
      for (Index j = 0; j < d_; ++j) row[j] *= step.decay[static_cast<std::size_t>(j)];
    }
    double projection = 0.0;
#pragma omp simd reduction(+ : projection)
    for (Index j = 0; j < d_; ++j) projection += row[j] * k[static_cast<std::size_t>(j)];
#pragma omp simd
    for (Index j = 0; j < d_; ++j) row[j] -= projection * a[static_cast<std::size_t>(j)];
  }
  // A step changes the norm by a factor of p + 1 at most, p = |k| |a|: far from 2^1000 in 32 steps.
  constexpr Index kStepsPerRescale = 32;
  if (++steps_ % kStepsPerRescale == 0) rescale();
}

void JacobianProduct::rescale() {
  double largest = 0.0;
  for (const double value : values_) largest = std::max(largest, std::abs(value));
  if (largest == 0.0 || !std::isfinite(largest)) return;
  const int shift = std::ilogb(largest);
  if (std::abs(shift) < 64) return;
  for (double& value : values_) value = std::ldexp(value, -shift);
  exponent_ += shift;
}

double JacobianProduct::norm() const { return std::ldexp(spectral_norm(values_, d_), exponent_); }

}  // namespace vla_bench
