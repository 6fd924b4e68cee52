#include "host/cli/status_command.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "aprime/mount_status.hpp"
#include "host/cli/exit_code.hpp"
#include "host/cli/report.hpp"
#include "host/cli/size_option.hpp"

namespace aprime::cli {
namespace {

nlohmann::ordered_json json_of(const FileStatus& file) {
  const GranuleCounts& g = file.granules;
  return {{"path", file.path},
          {"size", file.size.value},
          {"granule", file.granule.value},
          {"granules",
           {{"host", g.host.value},
            {"home", g.home.value},
            {"shared", g.shared.value},
            {"device", g.device.value},
            {"device_dirty", g.device_dirty.value},
            {"mount", g.mount.value}}},
          {"dirty_bytes", file.dirty_bytes.value},
          {"failed_writebacks", file.failed_writebacks},
          {"last_error", file.last_error}};
}

/// As much of the files as only a device has. The devices count granules, which may reach beyond a file's
/// end.
ByteCount dirty_bytes(const MountStatus& status) {
  ByteCount sum;
  for (const FileStatus& file : status.files) sum.value += file.dirty_bytes.value;
  return sum;
}

std::string to_json(const MountStatus& status) {
  const Stats& s = status.stats;
  nlohmann::ordered_json json;
  json["source"] = status.source;
  json["mountpoint"] = status.mountpoint;
  json["process"] = status.process;
  json["version"] = status.version;
  json["devices"] = nlohmann::ordered_json::array();
  for (const DeviceInfo& d : status.devices) {
    json["devices"].push_back({{"name", d.name},
                               {"description", d.description},
                               {"memory", d.memory.value},
                               {"chosen_because", d.chosen_because}});
  }
  json["files"] = nlohmann::ordered_json::array();
  for (const FileStatus& file : status.files) json["files"].push_back(json_of(file));
  json["dirty_bytes"] = dirty_bytes(status).value;
  json["resident_bytes"] = s.resident_bytes;
  json["faults"] = faults_json(s.faults);
  json["bytes_filled"] = s.bytes_filled;
  json["bytes_copied_back"] = s.bytes_copied_back;
  json["bytes_bounced"] = s.bytes_bounced;
  json["evictions"] = s.evictions;
  json["writeback_errors"] = s.writeback_errors;
  // A file name may be any bytes.
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string file_table(const std::vector<FileStatus>& files) {
  if (files.empty()) return "  No file is mapped: all are those of the source.\n";
  std::string text = "\n  Granules of each file\n  ";
  for (const char* place : {"host", "home", "shared", "device", "unsaved", "mount"})
    text += fmt::format("{:>9}", place);
  text += fmt::format("{:>12}{:>12}  {}\n", "dirty", "size", "file");
  for (const FileStatus& file : files) {
    const GranuleCounts& g = file.granules;
    text += "  ";
    for (const GranuleCount count : {g.host, g.home, g.shared, g.device, g.device_dirty, g.mount})
      text += fmt::format("{:>9}", count.value);
    text +=
        fmt::format("{:>12}{:>12}  {}\n", format_size(file.dirty_bytes), format_size(file.size), file.path);
    if (file.failed_writebacks != 0)
      text += fmt::format("  {} failed writebacks; the last: {}\n", file.failed_writebacks, file.last_error);
  }
  return text;
}

std::string to_text(const MountStatus& status) {
  const Stats& s = status.stats;
  std::string text = fmt::format("{} on {}, served by process {} (aprime {})\n", status.source,
                                 status.mountpoint, status.process, status.version);
  const auto line = [&text](const char* name, const std::string& value) {
    text += fmt::format("  {:<12}{}\n", name, value);
  };
  for (const DeviceInfo& d : status.devices)
    line("device", fmt::format("{}, {} of memory; {}", d.name, format_size(d.memory), d.chosen_because));
  line("dirty", fmt::format("{} exist only on a device; {} of device memory in use",
                            format_size(dirty_bytes(status)), format_size(ByteCount{s.resident_bytes})));
  line("faults", describe_faults(s.faults));
  line("moved", describe_moves(s));
  line("errors", fmt::format("{} failed writebacks", s.writeback_errors));
  return text + file_table(status.files);
}

}  // namespace

int status_command(const std::string& path, bool json) {
  const MountStatus status = mount_status(path);
  print(json ? to_json(status) : to_text(status));
  return ExitCode::done;
}

}  // namespace aprime::cli
