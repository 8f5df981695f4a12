// The spectral norm of the recurrence's Jacobian. One step maps S_{t-1} to S_{t-1} J_t + ... with
// J_t = D (I - k a^T): the residual reads with k, the write is along a, and D, diagonal, is the
// decay of the state before both (I in most rules). So after t steps the first state has been
// multiplied by J_1 J_2 ... J_t.
#pragma once

#include <vector>

#include "mixers/mixer.h"

namespace vla_bench {

/// Largest singular value of I - k a^T in closed form, any lengths of k and a (d each, d >= 1).
///
/// J moves only the plane of k and a; on it det J = 1 - c and tr J^T J = 2 - 2c + p^2, with c = k.a
/// and p = |k| |a|. So the two squared singular values there are the roots of
///   s^2 - (2 - 2c + p^2) s + (1 - c)^2 = 0,
/// the larger of which is ((2 - 2c + p^2) + p sqrt(4 - 4c + p^2)) / 2 and at least 1, the value of
/// every other direction (|c| <= p). Unit k and a give the formula of Proposition 2.
double rank_one_spectral_norm(const std::vector<double>& k, const std::vector<double>& a);

/// The same for a step: the largest decay times the norm of I - k a^T. A bound where the channels
/// of a state decay apart, else exact.
struct ClosedForm {
  double norm = 0.0;
  bool is_exact = true;
};
ClosedForm closed_form(const StepJacobian& step);

/// Cosine of the angle between k and a; NaN when one of them is 0.
double cosine(const std::vector<double>& k, const std::vector<double>& a);

/// Largest singular value of a row-major (d, d) matrix by Eigen's SVD; infinity when an entry is
/// not finite.
double spectral_norm(const std::vector<double>& matrix, Index d);

/// The largest singular value of `matrix`, row-major (d, d), by SVD. Throws RunError when it
/// differs from the closed form by over 1e-6, relative where that is above 1; of a bound, exceeds
/// it by that.
double checked_spectral_norm(const std::vector<double>& matrix, const ClosedForm& closed_form);

/// J as a row-major (d, d) matrix.
std::vector<double> step_matrix(const StepJacobian& step);

/// P_t = J_1 ... J_t with a separate power of two, since products of many projections leave the
/// range of double.
class JacobianProduct {
 public:
  explicit JacobianProduct(Index d);
  /// P <- P J, in 2 d^2 multiply-adds and d^2 products with a decay.
  void multiply(const StepJacobian& step);
  double norm() const;

 private:
  void rescale();

  Index d_;
  Index steps_ = 0;
  int exponent_ = 0;            // P = values_ 2^exponent_
  std::vector<double> values_;  // (d, d)
};

}  // namespace vla_bench
