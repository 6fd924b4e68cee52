#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace aprime::bench {

/// What one round of an experiment measured: the figure, and the floor beside it. Seconds, or bytes.
struct Sample {
  double measured = 0;
  /// What plain system calls need for the same, at the same moment; 0 where the figure has no floor.
  double floor = 0;
};

/// Something that can be measured again and again. Set up by its constructor, so that only what was selected
/// costs anything.
class Experiment {
 public:
  virtual ~Experiment() = default;
  /// Measures once, figure and floor one right after the other: these machines drift, their ratio hardly
  /// does.
  virtual Sample round() = 0;
};

enum class Unit { gigabytes_per_second, microseconds, milliseconds, bytes, kibibytes };
enum class Goal {
  ratio_at_least,  ///< throughput, as a part of the floor's
  ratio_at_most,   ///< time, as a multiple of the floor's
  figure_at_most,  ///< no floor: the figure itself
};

/// One row of the table.
struct Figure {
  /// Name for --benchmark_filter and for the table of reasons.
  std::string key;
  std::string text;
  std::string floor_text;
  Unit unit;
  /// By what a sample is divided (operations), or what is divided by it (bytes, for a throughput).
  double amount;
  Goal goal;
  /// 0 if nothing is asked of the figure.
  double must;
  /// Odd, so that the median is a round that took place.
  int rounds;
  std::function<std::unique_ptr<Experiment>()> make;
};

struct Result {
  /// Index of the figure.
  std::size_t figure;
  /// Medians over the rounds; the ratio is the median of the rounds' ratios, so that drift between rounds
  /// does not enter.
  Sample median;
  double ratio = 0;
  std::string error;
};

using Figures = std::vector<Figure>;

// One for each source file with experiments.
void add_transfers(Figures& figures);
void add_streaming(Figures& figures);
void add_faults(Figures& figures);
void add_resident(Figures& figures);
void add_sync(Figures& figures);
void add_sizes(Figures& figures);
void add_host_access(Figures& figures);
void add_strict(Figures& figures);
/// In a build with CUDA. Without a GPU its figures are not measured, and say so.
void add_cuda(Figures& figures);
void add_mount(Figures& figures);

/// Runs the rounds of one figure; `next` is called before each and ends the run early when it returns false.
Result measure(const Figures& figures, std::size_t figure, const std::function<bool(const Sample*)>& next);

bool is_met(const Figure& figure, const Result& result);

/// The table in Markdown. `reasons`: for each key a line "key:", and after it, indented by two spaces, why
/// the figure is not met. Shown under rows that are not met.
std::string render(const Figures& figures, const std::vector<Result>& results, const std::string& reasons);

}  // namespace aprime::bench
