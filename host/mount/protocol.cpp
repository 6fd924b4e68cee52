#include "host/mount/protocol.hpp"

#include <fmt/format.h>
#include <sys/sysmacros.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "aprime/version.hpp"

namespace aprime::mount {
namespace {

using Json = nlohmann::json;

constexpr std::pair<Errc, const char*> kCodes[] = {
    {Errc::invalid_argument, "invalid_argument"},
    {Errc::cannot_open, "cannot_open"},
    {Errc::conflict, "conflict"},
    {Errc::access_denied, "access_denied"},
    {Errc::out_of_range, "out_of_range"},
    {Errc::io, "io"},
    {Errc::no_space, "no_space"},
    {Errc::device_memory, "device_memory"},
    {Errc::resources, "resources"},
    {Errc::kernel_failed, "kernel_failed"},
    {Errc::device_failed, "device_failed"},
};

[[noreturn]] void refuse(const std::string& why, Errc code = Errc::invalid_argument) {
  throw Error(code, why);
}

/// Null if it is no object, or has no such field.
const Json* field(const Json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(name);
  return found == object.end() ? nullptr : &*found;
}

std::string text_field(const Json& object, const char* name) {
  const Json* value = field(object, name);
  return value != nullptr && value->is_string() ? value->get<std::string>() : "";
}

std::uint64_t number_field(const Json& object, const char* name) {
  const Json* value = field(object, name);
  return value != nullptr && value->is_number_unsigned() ? value->get<std::uint64_t>() : 0;
}

/// Calls `fn(name, counter)` for each number of a Stats.
template <class AnyStats, class Fn>
void for_each_counter(AnyStats& s, Fn fn) {
  fn("device_read_faults", s.faults.device_read);
  fn("device_write_faults", s.faults.device_write);
  fn("host_read_faults", s.faults.host_read);
  fn("host_write_faults", s.faults.host_write);
  fn("granules_filled", s.granules_filled);
  fn("granules_copied_back", s.granules_copied_back);
  fn("bytes_filled", s.bytes_filled);
  fn("bytes_copied_back", s.bytes_copied_back);
  fn("bytes_bounced", s.bytes_bounced);
  fn("evictions", s.evictions);
  fn("spurious_faults", s.spurious_faults);
  fn("throttled", s.throttled);
  fn("writeback_errors", s.writeback_errors);
  fn("over_protections", s.over_protections);
  fn("dirty_bytes", s.dirty_bytes);
  fn("resident_bytes", s.resident_bytes);
}

Json json_of(const Stats& stats) {
  Json json;
  for_each_counter(stats, [&](const char* name, std::uint64_t value) { json[name] = value; });
  return json;
}

Stats stats_of(const Json& json) {
  Stats stats;
  for_each_counter(stats, [&](const char* name, std::uint64_t& value) { json.at(name).get_to(value); });
  return stats;
}

Json json_of(const DeviceInfo& d) {
  return {{"name", d.name},
          {"description", json_text(d.description)},
          {"chosen_because", json_text(d.chosen_because)},
          {"hardware_paged", d.hardware_paged},
          {"memory", d.memory.value},
          {"workers", d.workers}};
}

DeviceInfo device_of(const Json& json) {
  DeviceInfo d;
  json.at("name").get_to(d.name);
  d.description = bytes_of_json_text(json.at("description").get<std::string>());
  d.chosen_because = bytes_of_json_text(json.at("chosen_because").get<std::string>());
  json.at("hardware_paged").get_to(d.hardware_paged);
  json.at("memory").get_to(d.memory.value);
  json.at("workers").get_to(d.workers);
  return d;
}

Json json_of(const FileStatus& f) {
  const GranuleCounts& g = f.granules;
  return {{"path", json_text(f.path)},
          {"size", f.size.value},
          {"granule", f.granule.value},
          {"granules",
           {g.host.value, g.home.value, g.shared.value, g.device.value, g.device_dirty.value, g.mount.value}},
          {"dirty_bytes", f.dirty_bytes.value},
          {"failed_writebacks", f.failed_writebacks},
          {"last_error", json_text(f.last_error)}};
}

FileStatus file_of(const Json& json) {
  FileStatus f;
  f.path = bytes_of_json_text(json.at("path").get<std::string>());
  json.at("size").get_to(f.size.value);
  json.at("granule").get_to(f.granule.value);
  const Json& counts = json.at("granules");
  GranuleCounts& g = f.granules;
  std::size_t n = 0;
  for (GranuleCount* count : {&g.host, &g.home, &g.shared, &g.device, &g.device_dirty, &g.mount})
    counts.at(n++).get_to(count->value);
  json.at("dirty_bytes").get_to(f.dirty_bytes.value);
  json.at("failed_writebacks").get_to(f.failed_writebacks);
  f.last_error = bytes_of_json_text(json.at("last_error").get<std::string>());
  return f;
}

}  // namespace

std::vector<std::string> socket_directories(uid_t user) {
  const std::string own = user == 0 ? "/run/aprime" : fmt::format("/run/user/{}/aprime", user);
  return {own, fmt::format("/tmp/aprime-{}", user)};
}

std::string socket_name(std::uint64_t device) {
  return fmt::format("{}-{}.sock", gnu_dev_major(device), gnu_dev_minor(device));
}

std::string encode(const MountMessage& message, std::uint64_t device) {
  if (message.type.empty()) refuse("a message needs a type");
  Json body = Json::parse(message.body, nullptr, false);
  if (!body.is_object()) refuse(fmt::format("the body of the message '{}' is no JSON object", message.type));
  Json json = {
      {"version", kProtocolVersion}, {"mount", device}, {"type", message.type}, {"body", std::move(body)}};
  try {
    return json.dump();
  } catch (const Json::exception&) {
    refuse("the type of a message has to be UTF-8; `json_text` makes that of any bytes");
  }
}

MountMessage decode(std::string_view text, std::uint64_t device) {
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) refuse("the message is no JSON");
  MountMessage message;
  message.type = text_field(json, "type");
  const Json* body = field(json, "body");
  if (body != nullptr && body->is_object()) message.body = body->dump();
  if (message.type == "error") return message;
  const Json* version = field(json, "version");
  if (version == nullptr || *version != kProtocolVersion)
    refuse(fmt::format("the message has version {}; aprime {}, which has to understand it, speaks version {} "
                       "only: use the `aprime` that mounted, or unmount and mount again",
                       version == nullptr ? "none" : version->dump(), library_version(), kProtocolVersion),
           Errc::conflict);
  const Json* mount = field(json, "mount");
  if (mount == nullptr || *mount != device)
    refuse("the message is for another mount; try again", Errc::conflict);
  if (message.type.empty()) refuse("the message has no type");
  if (body == nullptr || !body->is_object()) refuse("the message has no body");
  return message;
}

MountMessage error_message(const Error& error) {
  const char* name = "resources";
  for (const auto& [known, word] : kCodes)
    if (known == error.code()) name = word;
  const Json body = {{"code", name},
                     {"message", json_text(error.what())},
                     {"path", json_text(error.path())},
                     {"errno", error.system_error()},
                     {"offset", error.offset().value}};
  return {"error", body.dump()};
}

MountMessage error_message(const std::exception& error) {
  const auto* own = dynamic_cast<const Error*>(&error);
  return error_message(own != nullptr ? *own : Error(Errc::resources, error.what()));
}

void throw_if_error(const MountMessage& answer) {
  if (answer.type != "error") return;
  const Json body = Json::parse(answer.body, nullptr, false);
  const std::string word = text_field(body, "code");
  Errc code = Errc::resources;
  for (const auto& [known, name] : kCodes)
    if (word == name) code = known;
  throw Error(code, bytes_of_json_text(text_field(body, "message")),
              bytes_of_json_text(text_field(body, "path")), static_cast<int>(number_field(body, "errno")),
              ByteOffset{number_field(body, "offset")});
}

MountMessage status_message(const MountStatus& status) {
  Json devices = Json::array(), files = Json::array();
  for (const DeviceInfo& d : status.devices) devices.push_back(json_of(d));
  for (const FileStatus& f : status.files) files.push_back(json_of(f));
  const Json body = {{"source", json_text(status.source)}, {"mountpoint", json_text(status.mountpoint)},
                     {"process", status.process},          {"version", status.version},
                     {"devices", std::move(devices)},      {"files", std::move(files)},
                     {"stats", json_of(status.stats)}};
  return {"status", body.dump()};
}

MountStatus status_of(const MountMessage& answer, const std::string& mountpoint) {
  try {
    const Json json = Json::parse(answer.body);
    MountStatus status;
    status.source = bytes_of_json_text(json.at("source").get<std::string>());
    status.mountpoint = bytes_of_json_text(json.at("mountpoint").get<std::string>());
    json.at("process").get_to(status.process);
    json.at("version").get_to(status.version);
    for (const Json& d : json.at("devices")) status.devices.push_back(device_of(d));
    for (const Json& f : json.at("files")) status.files.push_back(file_of(f));
    status.stats = stats_of(json.at("stats"));
    return status;
  } catch (const Json::exception& error) {
    throw Error(Errc::cannot_open,
                fmt::format("cannot use '{}': its process gives an answer that makes no sense: {}",
                            mountpoint, error.what()),
                mountpoint);
  }
}

}  // namespace aprime::mount
