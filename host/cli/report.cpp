#include "host/cli/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <stdexcept>

#include "host/cli/exit_code.hpp"
#include "host/cli/size_option.hpp"

namespace aprime::cli {
namespace {

/// JSON has no numbers for what is not finite.
nlohmann::ordered_json json_of(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  return value;
}
nlohmann::ordered_json json_of(std::uint64_t value) { return value; }
nlohmann::ordered_json json_of(const std::vector<std::uint64_t>& values) { return values; }

std::string describe(std::uint64_t value) { return grouped(value); }
std::string describe(double value) { return fmt::format("{}", value); }
std::string describe(const std::vector<std::uint64_t>& values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return values[a] > values[b]; });
  const auto used =
      std::count_if(values.begin(), values.end(), [](std::uint64_t value) { return value != 0; });
  std::string text = fmt::format("{} of {} in use", used, values.size());
  for (std::size_t i = 0; i < std::min<std::size_t>(4, static_cast<std::size_t>(used)); ++i) {
    text += fmt::format("{} {}: {}", i == 0 ? "; most in" : ",", order[i], grouped(values[order[i]]));
  }
  return text;
}

}  // namespace

std::string grouped(std::uint64_t number) {
  std::string digits = std::to_string(number);
  for (std::size_t at = digits.size(); at > 3;) digits.insert(at -= 3, 1, ',');
  return digits;
}

std::string printable(const std::string& text) {
  const nlohmann::json value = text;
  const std::string dumped = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return nlohmann::json::parse(dumped).get<std::string>();
}

nlohmann::ordered_json faults_json(const FaultStats& faults) {
  return {{"device_read", faults.device_read},
          {"device_write", faults.device_write},
          {"host_read", faults.host_read},
          {"host_write", faults.host_write}};
}

std::string describe_faults(const FaultStats& faults) {
  return fmt::format("device {} to read, {} to write; host {} to read, {} to write",
                     grouped(faults.device_read), grouped(faults.device_write), grouped(faults.host_read),
                     grouped(faults.host_write));
}

std::string describe_moves(const Stats& stats) {
  return fmt::format("{} to the device, {} back, {} bounced; {} evictions",
                     format_size(ByteCount{stats.bytes_filled}),
                     format_size(ByteCount{stats.bytes_copied_back}),
                     format_size(ByteCount{stats.bytes_bounced}), grouped(stats.evictions));
}

std::string to_json(const RunReport& report) {
  nlohmann::ordered_json result = nlohmann::ordered_json::object();
  for (const auto& [name, value] : report.result) {
    std::visit([&, &key = name](const auto& v) { result[key] = json_of(v); }, value);
  }
  const Stats& stats = report.stats;
  nlohmann::ordered_json json;
  json["workload"] = report.workload;
  json["device"] = report.device.name;
  json["device_memory"] = report.device.memory.value;
  json["chosen_because"] = report.device.chosen_because;
  json["file"] = report.file;
  json["bytes"] = report.bytes.value;
  json["seconds"] = report.seconds;
  json["verified"] = nullptr;
  if (report.verified) json["verified"] = *report.verified;
  json["disagreement"] = nullptr;
  if (report.verified == false) json["disagreement"] = report.disagreement;
  json["result"] = std::move(result);
  json["host_traffic"] = nullptr;
  if (report.host_traffic)
    json["host_traffic"] = {{"reads", report.host_traffic->first}, {"writes", report.host_traffic->second}};
  json["faults"] = faults_json(stats.faults);
  json["bytes_filled"] = stats.bytes_filled;
  json["bytes_copied_back"] = stats.bytes_copied_back;
  json["bytes_bounced"] = stats.bytes_bounced;
  json["evictions"] = stats.evictions;
  // A file name may be any bytes.
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string to_text(const RunReport& report) {
  const Stats& stats = report.stats;
  const double rate = report.seconds > 0 ? static_cast<double>(report.bytes.value) / report.seconds : 0;
  std::string text = fmt::format("{}  {}\n", report.workload, report.file);
  const auto line = [&text](const std::string& name, const std::string& value) {
    text += fmt::format("  {:<12}{}\n", name, value);
  };
  for (const auto& [name, value] : report.result) {
    line(name, std::visit([](const auto& v) { return describe(v); }, value));
  }
  line("time", fmt::format("{:.3f} s for {} ({}/s)", report.seconds, format_size(report.bytes),
                           format_size(ByteCount{static_cast<std::uint64_t>(rate)})));
  line("device", fmt::format("{}, {} of memory; {}", report.device.name, format_size(report.device.memory),
                             report.device.chosen_because));
  line("faults", describe_faults(stats.faults));
  line("moved", describe_moves(stats));
  if (report.host_traffic) {
    line("meanwhile", fmt::format("{} reads and {} writes by the CPU", grouped(report.host_traffic->first),
                                  grouped(report.host_traffic->second)));
  }
  if (report.verified) line("verified", *report.verified ? "yes" : "NO: " + report.disagreement);
  return text;
}

int conclude(RunReport& report, kernels::Check* check, bool json) {
  if (check != nullptr) {
    report.disagreement = check->disagreement(report.result);
    report.verified = report.disagreement.empty();
  }
  print(json ? to_json(report) : to_text(report));
  if (report.verified == false) throw Disagreement(fmt::format("{}: {}", report.file, report.disagreement));
  return ExitCode::done;
}

void print(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    throw std::runtime_error(fmt::format("standard output: cannot write: {}", std::strerror(errno)));
  }
}

void tell(std::string_view text) noexcept {
  static_cast<void>(std::fwrite(text.data(), 1, text.size(), stderr));
  static_cast<void>(std::fflush(stderr));
}

std::string as_line(std::string_view text) {
  std::string line = "aprime: ";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      line += "\\n";
    } else if (byte < 0x20 || byte == 0x7f) {
      line += fmt::format("\\x{:02x}", byte);
    } else {
      line += c;
    }
  }
  return line + "\n";
}

void tell_line(std::string_view text) { tell(as_line(text)); }

}  // namespace aprime::cli
