#include "host/cli/device_options.hpp"

#include <fmt/format.h>

#include <map>
#include <string_view>

#include "aprime/error.hpp"
#include "host/cli/size_option.hpp"

namespace aprime::cli {
namespace {

constexpr std::uint64_t kGranulesMin = 16;

const std::map<std::string, DeviceKind> kDeviceKinds{{"auto", DeviceKind::automatic},
                                                     {"cuda", DeviceKind::cuda},
                                                     {"emulated", DeviceKind::emulated},
                                                     {"emulated-strict", DeviceKind::emulated_strict}};
const std::map<std::string, DeviceMemoryKind> kMemoryKinds{{"device", DeviceMemoryKind::device},
                                                           {"managed", DeviceMemoryKind::managed}};
const std::map<std::string, HostAccess> kHostAccesses{
    {"migrate", HostAccess::migrate}, {"bounce", HostAccess::bounce}, {"adaptive", HostAccess::adaptive}};

template <class T>
std::string word_for(const std::map<std::string, T>& choices, T value) {
  for (const auto& [word, meaning] : choices)
    if (meaning == value) return word;
  return {};
}

template <class T>
void add_choice(CLI::App& command, const std::string& name, T& value, const std::map<std::string, T>& choices,
                const std::string& help) {
  std::string names;
  for (const auto& [word, unused] : choices) names += (names.empty() ? "" : "|") + word;
  command
      .add_option_function<std::string>(
          name,
          [name, &value, choices, names](const std::string& given) {
            const auto found = choices.find(given);
            if (found == choices.end()) {
              throw CLI::ValidationError(name, fmt::format("'{}' is not one of {}", given, names));
            }
            value = found->second;
          },
          help)
      ->type_name(names);
}

CLI::Option* add_size(CLI::App& command, const std::string& name, ByteCount& value, const std::string& help) {
  return command
      .add_option_function<std::string>(
          name,
          [name, &value](const std::string& given) {
            const std::errc error = parse_size(given, value);
            if (error == std::errc::result_out_of_range)
              throw CLI::ValidationError(name, fmt::format("'{}' is too large", given));
            if (error != std::errc{})
              throw CLI::ValidationError(name,
                                         fmt::format("'{}' is not a size such as 4096, 64K or 1GiB", given));
          },
          help)
      ->type_name("SIZE")
      ->default_str(format_size_option(value));
}

}  // namespace

RuntimeOptions DeviceChoice::runtime_options() const {
  RuntimeOptions options;
  options.devices = {DeviceOptions{.kind = kind, .memory = memory, .memory_kind = memory_kind}};
  options.granule = granule;
  options.host_access = host_access;
  return options;
}

void add_device_options(CLI::App& command, DeviceChoice& choice) {
  add_choice(command, kDeviceOption, choice.kind, kDeviceKinds,
             "device to run on (default: auto, the best there is; see `aprime info`)");
  add_size(command, "--granule", choice.granule,
           "unit of coherence and transfer, a power of two from 4K to 2M");
  add_size(command, "--device-memory", choice.memory, "memory the device may use; files may be larger");
  add_choice(
      command, "--device-memory-kind", choice.memory_kind, kMemoryKinds,
      "what a CUDA device's memory is: its own, or managed, which other CUDA code may use on the CPU too "
      "(default: device)");
  add_choice(
      command, kHostAccessOption, choice.host_access, kHostAccesses,
      "how CPU reads and writes treat bytes that the device owns: take them back, copy them by way of a "
      "bounce "
      "buffer, or by cost (default: adaptive)");
}

Runtime make_runtime(const RuntimeOptions& options) {
  constexpr std::string_view kOption = "DeviceOptions::memory";
  try {
    return Runtime(options);
  } catch (const Error& error) {
    std::string text = error.what();
    if (!text.starts_with(kOption)) throw;
    text.replace(0, kOption.size(), "--device-memory");
    throw Error(error.code(), text, error.path(), error.system_error());
  }
}

void note_given_options(const CLI::App& command, DeviceChoice& choice) {
  const auto note = [&](const std::string& name) {
    if (command.get_option(name)->count() != 0) choice.given.insert(name);
  };
  for (const auto& [name, value] : mount_options(choice)) note(name);
  note(kHostAccessOption);
}

std::vector<std::pair<std::string, std::string>> mount_options(const DeviceChoice& choice) {
  return {{kDeviceOption, word_for(kDeviceKinds, choice.kind)},
          {"--granule", format_size_option(choice.granule)},
          {"--device-memory", format_size_option(choice.memory)},
          {"--device-memory-kind", word_for(kMemoryKinds, choice.memory_kind)}};
}

std::string name_of(HostAccess access) { return word_for(kHostAccesses, access); }

std::optional<HostAccess> host_access_of(const std::string& name) {
  const auto found = kHostAccesses.find(name);
  return found == kHostAccesses.end() ? std::nullopt : std::optional{found->second};
}

void check_device_options(const DeviceChoice& choice) {
  if (!GranuleSize::is_valid(choice.granule)) {
    throw CLI::ValidationError("--granule", fmt::format("{} is not a power of two from 4K to 2M",
                                                        format_size_option(choice.granule)));
  }
  const ByteCount needed{kGranulesMin * choice.granule.value};
  if (choice.memory < needed) {
    throw CLI::ValidationError(
        "--device-memory",
        fmt::format("{} is too small for granules of {}: at least {} ({} granules) are needed",
                    format_size_option(choice.memory), format_size_option(choice.granule),
                    format_size_option(needed), kGranulesMin));
  }
}

}  // namespace aprime::cli
