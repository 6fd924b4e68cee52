#include "host/cli/run_messages.hpp"

#include <fmt/format.h>

#include <bit>
#include <nlohmann/json.hpp>

#include "aprime/error.hpp"

namespace aprime::cli {
namespace {

using Json = nlohmann::json;
using kernels::Argument;
using kernels::Arguments;

std::string text_at(const Json& json, const char* name) {
  return bytes_of_json_text(json.at(name).get<std::string>());
}

/// Calls `read(json)` for the body of an answer.
template <class Read>
auto read_answer(const MountMessage& answer, Read read) {
  try {
    return read(Json::parse(answer.body));
  } catch (const Json::exception& error) {
    throw std::runtime_error(
        fmt::format("the mount's process gives an answer that makes no sense: {}", error.what()));
  }
}

/// Numbers go as their bits: JSON has no infinities, and no numbers that are none.
Json json_of(float value) { return std::bit_cast<std::uint32_t>(value); }

Json json_of(const kernels::Value& value) {
  if (const auto* number = std::get_if<double>(&value))
    return {{"bits", std::bit_cast<std::uint64_t>(*number)}};
  if (const auto* count = std::get_if<std::uint64_t>(&value)) return *count;
  return std::get<std::vector<std::uint64_t>>(value);
}

kernels::Value value_of(const Json& json) {
  if (json.is_object()) return std::bit_cast<double>(json.at("bits").get<std::uint64_t>());
  if (json.is_array()) return json.get<std::vector<std::uint64_t>>();
  return json.get<std::uint64_t>();
}

Json json_of(const Arguments& arguments, const Argument& argument) {
  if (const auto* text = std::get_if<std::string Arguments::*>(&argument.value))
    return json_text(arguments.*(*text));
  if (const auto* number = std::get_if<float Arguments::*>(&argument.value))
    return json_of(arguments.*(*number));
  return arguments.*std::get<std::uint64_t Arguments::*>(argument.value);
}

void read_into(Arguments& arguments, const Argument& argument, const Json& json) {
  if (std::holds_alternative<Access>(argument.value)) {
    arguments.files.push_back(bytes_of_json_text(json.get<std::string>()));
  } else if (const auto* text = std::get_if<std::string Arguments::*>(&argument.value)) {
    arguments.*(*text) = bytes_of_json_text(json.get<std::string>());
  } else if (const auto* number = std::get_if<float Arguments::*>(&argument.value)) {
    arguments.*(*number) = std::bit_cast<float>(json.get<std::uint32_t>());
  } else {
    const auto count = json.get<std::uint64_t>();
    if (!json.is_number_unsigned() || count < argument.smallest)
      throw Error(Errc::invalid_argument, fmt::format("{}: '{}' is not a whole number of at least {}",
                                                      argument.name, json.dump(), argument.smallest));
    arguments.*std::get<std::uint64_t Arguments::*>(argument.value) = count;
  }
}

}  // namespace

MountMessage request_of(const kernels::Workload& workload, const RunOptions& options,
                        std::span<const MountedPath> files) {
  Json arguments = Json::object();
  std::size_t next_file = 0;
  for (const Argument& argument : workload.arguments) {
    arguments[argument.name] = std::holds_alternative<Access>(argument.value)
                                   ? Json(json_text(files[next_file++].path))
                                   : json_of(options.arguments, argument);
  }
  Json body = {{"workload", workload.name},
               {"arguments", std::move(arguments)},
               {"concurrent_host", options.concurrent_host},
               {"given", Json::object()}};
  const DeviceChoice& choice = options.device;
  for (const auto& [name, value] : mount_options(choice))
    if (choice.given.contains(name)) body["given"][name] = value;
  if (choice.given.contains(kHostAccessOption)) body["host_access"] = name_of(choice.host_access);
  return {kRun, body.dump()};
}

RunRequest parse_request(const MountMessage& request) {
  try {
    const Json json = Json::parse(request.body);
    RunRequest run;
    const auto name = json.at("workload").get<std::string>();
    run.workload = kernels::find_workload(name);
    if (run.workload == nullptr)
      throw Error(Errc::invalid_argument,
                  fmt::format("the process that serves the mount knows no workload '{}'", json_text(name)));
    for (const Argument& argument : run.workload->arguments)
      read_into(run.arguments, argument, json.at("arguments").at(argument.name));
    json.at("concurrent_host").get_to(run.concurrent_host);
    json.at("given").get_to(run.given);
    if (json.contains("host_access")) {
      run.host_access = host_access_of(json.at("host_access").get<std::string>());
      if (!run.host_access) throw Error(Errc::invalid_argument, "--host-access: no such kind");
    }
    return run;
  } catch (const Json::exception& error) {
    throw Error(Errc::invalid_argument, fmt::format("the request makes no sense: {}", error.what()));
  }
}

MountMessage ready_message(std::span<const Mapping> files) {
  Json sizes = Json::array();
  for (const Mapping& file : files) sizes.push_back(file.size_bytes().value);
  return {kReady, Json{{"sizes", std::move(sizes)}}.dump()};
}

MountMessage message_of(const RunProgress& progress) {
  return {
      kProgress,
      Json{{"phase", progress.phase}, {"total", progress.total.value}, {"done", progress.done.value}}.dump()};
}

MountMessage message_of(const RunReport& report) {
  const Stats& s = report.stats;
  Json result = Json::array();
  for (const auto& [name, value] : report.result)
    result.push_back({{"name", name}, {"value", json_of(value)}});
  Json body = {
      {"device",
       {{"name", report.device.name},
        {"memory", report.device.memory.value},
        {"chosen_because", json_text(report.device.chosen_because)}}},
      {"bytes", report.bytes.value},
      {"seconds", report.seconds},
      {"result", std::move(result)},
      {"faults", {s.faults.device_read, s.faults.device_write, s.faults.host_read, s.faults.host_write}},
      {"moved", {s.bytes_filled, s.bytes_copied_back, s.bytes_bounced, s.evictions}}};
  if (report.host_traffic) body["host_traffic"] = {report.host_traffic->first, report.host_traffic->second};
  return {kDone, body.dump()};
}

MountMessage text_message(const char* type, const std::string& text) {
  return {type, Json{{"text", json_text(text)}}.dump()};
}

std::vector<kernels::RunFile> run_files_of(const MountMessage& answer, std::span<const std::string> paths) {
  return read_answer(answer, [&](const Json& json) {
    std::vector<kernels::RunFile> files;
    for (const std::string& path : paths)
      files.push_back({path, ByteCount{json.at("sizes").at(files.size()).get<std::uint64_t>()}});
    return files;
  });
}

RunProgress progress_of(const MountMessage& answer) {
  return read_answer(answer, [](const Json& json) {
    return RunProgress{json.at("phase").get<std::string>(), ByteCount{json.at("total").get<std::uint64_t>()},
                       ByteCount{json.at("done").get<std::uint64_t>()}};
  });
}

RunReport report_of(const MountMessage& answer) {
  return read_answer(answer, [](const Json& json) {
    RunReport report;
    const Json& device = json.at("device");
    device.at("name").get_to(report.device.name);
    device.at("memory").get_to(report.device.memory.value);
    report.device.chosen_because = text_at(device, "chosen_because");
    json.at("bytes").get_to(report.bytes.value);
    json.at("seconds").get_to(report.seconds);
    for (const Json& r : json.at("result"))
      report.result.emplace_back(r.at("name").get<std::string>(), value_of(r.at("value")));
    Stats& s = report.stats;
    const Json &faults = json.at("faults"), &moved = json.at("moved");
    std::size_t n = 0;
    for (auto* count :
         {&s.faults.device_read, &s.faults.device_write, &s.faults.host_read, &s.faults.host_write})
      faults.at(n++).get_to(*count);
    n = 0;
    for (auto* count : {&s.bytes_filled, &s.bytes_copied_back, &s.bytes_bounced, &s.evictions})
      moved.at(n++).get_to(*count);
    if (json.contains("host_traffic"))
      report.host_traffic = {json.at("host_traffic").at(0).get<std::uint64_t>(),
                             json.at("host_traffic").at(1).get<std::uint64_t>()};
    return report;
  });
}

std::string text_of(const MountMessage& answer) {
  return read_answer(answer, [](const Json& json) { return text_at(json, "text"); });
}

}  // namespace aprime::cli
