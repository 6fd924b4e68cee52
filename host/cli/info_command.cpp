#include "host/cli/info_command.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "aprime/error.hpp"
#include "aprime/runtime.hpp"
#include "aprime/version.hpp"
#include "host/cli/exit_code.hpp"
#include "host/cli/report.hpp"
#include "host/cli/size_option.hpp"

namespace aprime::cli {
namespace {

struct Candidate {
  DeviceInfo info;
  /// Why it cannot be had; empty if it can.
  std::string problem;
};

/// Every kind of device by name, made once to see whether it works here.
std::vector<Candidate> try_devices() {
  const std::pair<const char*, DeviceKind> kinds[] = {{"cuda", DeviceKind::cuda},
                                                      {"emulated", DeviceKind::emulated},
                                                      {"emulated-strict", DeviceKind::emulated_strict}};
  std::vector<Candidate> candidates;
  for (const auto& [name, kind] : kinds) {
    Candidate candidate;
    candidate.info.name = name;
    try {
      RuntimeOptions options;
      options.devices = {DeviceOptions{.kind = kind}};
      candidate.info = Runtime(options).devices().front();
    } catch (const Error& error) {
      candidate.problem = error.what();
    }
    candidates.push_back(std::move(candidate));
  }
  return candidates;
}

/// What `--device auto` gives; empty if that fails.
DeviceInfo default_device() {
  try {
    return Runtime().devices().front();
  } catch (const Error&) {
    return {};
  }
}

std::string to_json(const std::vector<Candidate>& candidates, const std::vector<Feature>& features) {
  nlohmann::ordered_json json;
  json["version"] = library_version();
  const DeviceInfo chosen = default_device();
  json["default_device"] = chosen.name;
  json["default_because"] = chosen.chosen_because;
  json["devices"] = nlohmann::ordered_json::array();
  for (const auto& [info, problem] : candidates) {
    json["devices"].push_back({{"name", info.name},
                               {"available", problem.empty()},
                               {"description", problem.empty() ? info.description : problem},
                               {"hardware_paged", info.hardware_paged},
                               {"memory", info.memory.value},
                               {"workers", info.workers}});
  }
  json["features"] = nlohmann::ordered_json::array();
  for (const Feature& feature : features) {
    json["features"].push_back({{"name", feature.name},
                                {"available", feature.available},
                                {"detail", feature.detail},
                                {"cost", feature.cost},
                                {"remedy", feature.remedy}});
  }
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string to_text(const std::vector<Candidate>& candidates, const std::vector<Feature>& features) {
  std::string text = fmt::format("aprime {}\n\nDevices\n", library_version());
  const DeviceInfo chosen = default_device();
  for (const auto& [info, problem] : candidates) {
    if (!problem.empty()) {
      text += fmt::format("  {:<16} not available: {}\n", info.name, problem);
      continue;
    }
    text += fmt::format("  {:<16} {}\n", info.name, info.description);
    text += fmt::format("  {:<16} {} of memory, {} {}{}\n", "", format_size(info.memory), info.workers,
                        info.name == "cuda" ? "multiprocessors"
                        : info.workers == 1 ? "worker"
                                            : "workers",
                        info.name == chosen.name ? "; the default: " + chosen.chosen_because : "");
  }
  text += "\nThis machine\n";
  std::size_t width = 0;
  for (const Feature& feature : features) width = std::max(width, feature.name.size());
  for (const Feature& feature : features) {
    text += fmt::format("  {:<{}}  {:<3}  {}\n", feature.name, width, feature.available ? "yes" : "no",
                        feature.detail);
    if (feature.available) continue;
    if (!feature.cost.empty()) text += fmt::format("  {:<{}}       costs: {}\n", "", width, feature.cost);
    if (!feature.remedy.empty())
      text += fmt::format("  {:<{}}       to get it: {}\n", "", width, feature.remedy);
  }
  return text;
}

}  // namespace

int info_command(bool json) {
  const std::vector<Candidate> candidates = try_devices();
  const std::vector<Feature> features = probe_features();
  print(json ? to_json(candidates, features) : to_text(candidates, features));
  return ExitCode::done;
}

}  // namespace aprime::cli
