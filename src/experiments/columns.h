// The columns of the program's tables, each declared once: code refers to a column by its object,
// so that a misspelt name does not compile.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace vla_bench {

struct Column {
  std::string_view name;

  constexpr operator std::string_view() const { return name; }
  std::string operator+(std::string_view suffix) const { return std::string(name).append(suffix); }
};

struct Schema {
  std::string_view name;                  // file stem: "accuracy"
  std::vector<std::string_view> columns;  // in file order
};

/// A struct, so that experiments inherit the names.
struct Columns {
  // Identity of a cell (report/cell_columns.h has the values), and its status.
  static constexpr Column experiment{"experiment"}, label{"label"}, mixer{"mixer"},
      n_pairs{"n_pairs"}, layout{"layout"}, d_h{"d_h"}, n_heads{"n_heads"}, seq_len{"seq_len"},
      slice{"slice"}, short_conv{"short_conv"}, batch{"batch"}, trials{"trials"}, source{"source"},
      seed{"seed"}, learning_rate{"learning_rate"}, queries{"queries"}, device{"device"},
      precision{"precision"}, status{"status"}, reason{"reason"};

  // Trainings and their learning curves.
  static constexpr Column accuracy{"accuracy"}, loss{"loss"}, steps{"steps"},
      train_seconds{"train_seconds"}, step{"step"}, gradient_norm{"gradient_norm"},
      state_bytes{"state_bytes"}, conv_state_bytes{"conv_state_bytes"},
      probe_accuracy{"probe_accuracy"}, plateau_step{"plateau_step"};

  // Recall: the 95% interval over trials.
  static constexpr Column low{"low"}, high{"high"};

  // Probes, at token t counted from 1.
  static constexpr Column t{"t"}, s_norm{"s_norm"}, a_norm{"a_norm"}, sigma_max{"sigma_max"},
      sigma_closed_form{"sigma_closed_form"}, cosine{"cosine"}, product_norm{"product_norm"};

  // Timings; see experiments/latency.h.
  static constexpr Column implementation{"implementation"}, pass{"pass"}, median_s{"median_s"},
      p10_s{"p10_s"}, p90_s{"p90_s"}, repeats{"repeats"}, relative_error{"relative_error"},
      activation_bytes{"activation_bytes"}, flop{"flop"}, flop_per_s{"flop_per_s"}, bytes{"bytes"},
      bytes_per_s{"bytes_per_s"}, sgemm_flop_per_s{"sgemm_flop_per_s"},
      copy_bytes_per_s{"copy_bytes_per_s"};

  // Summaries (report/summary.h); for each quantity they have mean, sd, low and high.
  static constexpr Column line{"line"}, setting{"setting"}, cells{"cells"}, not_ok{"not_ok"},
      note{"note"}, config{"config"}, loss_median{"loss_median"}, left_plateau{"left_plateau"},
      plateau_step_median{"plateau_step_median"}, plateau_step_min{"plateau_step_min"},
      plateau_step_max{"plateau_step_max"}, interval_over{"interval_over"},
      linear_over_label{"linear_over_label"}, sigma_max_max{"sigma_max_max"},
      closed_form_gap{"closed_form_gap"}, processor{"processor"}, threads{"threads"};
};

}  // namespace vla_bench
