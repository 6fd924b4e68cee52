#include "bench/figure.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <sstream>

namespace aprime::bench {
namespace {

/// \pre not empty
double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double ratio_of(const Figure& figure, const Sample& s) {
  if (figure.goal == Goal::figure_at_most)
    return figure.must == 0 ? 0 : s.measured / figure.amount / figure.must;
  return figure.goal == Goal::ratio_at_least ? s.floor / s.measured : s.measured / s.floor;
}

std::string in_units(const Figure& figure, double value) {
  if (value == 0 && figure.goal != Goal::figure_at_most) return "-";
  switch (figure.unit) {
    case Unit::gigabytes_per_second: return fmt::format("{:.2f} GB/s", figure.amount / value * 1e-9);
    case Unit::microseconds: return fmt::format("{:.2f} µs", value / figure.amount * 1e6);
    case Unit::milliseconds: return fmt::format("{:.2f} ms", value / figure.amount * 1e3);
    case Unit::bytes: return fmt::format("{:.1f} B", value / figure.amount);
    case Unit::kibibytes: return fmt::format("{:.0f} KiB", value / figure.amount / 1024);
  }
  return {};
}

std::string must_in_words(const Figure& figure) {
  if (figure.must == 0) return "-";
  switch (figure.goal) {
    case Goal::ratio_at_least: return fmt::format(">= {:g}", figure.must);
    case Goal::ratio_at_most: return fmt::format("<= {:g}", figure.must);
    case Goal::figure_at_most: break;
  }
  std::string limit;
  switch (figure.unit) {
    case Unit::bytes: limit = fmt::format("{:g} B", figure.must); break;
    case Unit::kibibytes: limit = fmt::format("{:g} KiB", figure.must / 1024); break;
    case Unit::microseconds: limit = fmt::format("{:g} µs", figure.must * 1e6); break;
    case Unit::milliseconds: limit = fmt::format("{:g} ms", figure.must * 1e3); break;
    default: limit = fmt::format("{:g}", figure.must); break;
  }
  return "<= " + limit;
}

/// A reason is a line "key:" and the indented lines after it.
std::string reason_for(const std::string& key, const std::string& reasons) {
  std::istringstream lines(reasons);
  std::string reason;
  bool found = false;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(' '))
      found = line == key + ":";
    else if (found)
      reason += line.substr(reason.empty() ? 2 : 1);
  }
  return reason.empty() ? "not known" : reason;
}

}  // namespace

Result measure(const Figures& figures, std::size_t figure, const std::function<bool(const Sample*)>& next) {
  const Figure& f = figures[figure];
  Result result{.figure = figure, .median = {}, .error = {}};
  std::vector<double> measured;
  std::vector<double> floor;
  std::vector<double> ratios;
  try {
    const std::unique_ptr<Experiment> experiment = f.make();
    // Page tables, allocator caches, disk blocks: the first round pays for them. A figure of one round is
    // about just that.
    if (f.rounds > 1) static_cast<void>(experiment->round());
    const Sample* last = nullptr;
    Sample sample;
    while (next(last)) {
      sample = experiment->round();
      last = &sample;
      measured.push_back(sample.measured);
      floor.push_back(sample.floor);
      ratios.push_back(ratio_of(f, sample));
    }
  } catch (const std::exception& e) {
    result.error = e.what();
    return result;
  }
  if (measured.empty()) {
    result.error = "no round was run";
    return result;
  }
  result.median = {median(measured), median(floor)};
  result.ratio = median(ratios);
  return result;
}

bool is_met(const Figure& figure, const Result& result) {
  if (figure.must == 0) return true;
  if (!result.error.empty()) return false;
  if (figure.goal == Goal::figure_at_most) return result.ratio <= 1;
  return figure.goal == Goal::ratio_at_least ? result.ratio >= figure.must : result.ratio <= figure.must;
}

std::string render(const Figures& figures, const std::vector<Result>& results, const std::string& reasons) {
  std::string out = "| figure | measured | floor | ratio | must | met |\n|---|---|---|---|---|---|\n";
  for (const Result& r : results) {
    const Figure& f = figures[r.figure];
    const bool met = is_met(f, r);
    const bool has_floor = f.goal != Goal::figure_at_most;
    const bool failed = !r.error.empty();
    out += fmt::format(
        "| {} | {} | {} | {} | {} | {} |\n", f.text, failed ? "-" : in_units(f, r.median.measured),
        failed || !has_floor ? f.floor_text : in_units(f, r.median.floor) + ", " + f.floor_text,
        failed || !has_floor ? "-" : fmt::format("{:.2f}", r.ratio), must_in_words(f),
        failed        ? "not measured"
        : f.must == 0 ? "-"
        : met         ? "yes"
                      : "no");
    if (!met)
      out += fmt::format("| *why not:* {} | | | | | |\n", failed ? r.error : reason_for(f.key, reasons));
  }
  return out;
}

}  // namespace aprime::bench
