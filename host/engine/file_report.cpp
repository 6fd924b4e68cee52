#include <algorithm>

#include "host/engine/failure.hpp"
#include "host/engine/runtime_state.hpp"

namespace aprime::engine {
namespace {

GranuleCount& count_of(GranuleCounts& counts, coherence::Kind kind) noexcept {
  using coherence::Kind;
  switch (kind) {
    case Kind::cpu_exclusive: return counts.host;
    case Kind::home: return counts.home;
    case Kind::shared: return counts.shared;
    case Kind::device_exclusive: return counts.device;
    case Kind::device_owned: return counts.device_dirty;
    case Kind::mount_exclusive: break;
  }
  return counts.mount;
}

FileStatus report(CoherentFile& file) {
  FileStatus status;
  status.path = file.file().current_path();
  status.size = file.file().size().size;
  status.granule = file.granule().bytes();
  const GranuleRange all = file.granule().covering({ByteOffset{0}, status.size});
  const GranuleRange known{all.first, std::min(all.count, file.directory().capacity())};
  std::uint64_t touched = 0;
  file.directory().for_each_touched(known, [&](GranuleIndex g, GranuleWord word) {
    const GranuleState state = word.state();
    count_of(status.granules, state.kind).value += 1;
    touched += 1;
    if (!state.is_device_dirty()) return;
    const std::uint64_t first = file.granule().offset_of(g).value;
    status.dirty_bytes.value += std::min(status.granule.value, status.size.value - first);
  });
  // What was never given to anybody is not looked at.
  status.granules.host.value += all.count.value - touched;
  const auto [failures, last] = file.errors().last();
  status.failed_writebacks = failures;
  if (failures != 0) status.last_error = describe(last, file.path(), "write back");
  return status;
}

}  // namespace

std::vector<FileStatus> RuntimeState::report_files() const {
  std::vector<FileStatus> reports;
  for_each_file([&](CoherentFile& file) { reports.push_back(report(file)); });
  std::sort(reports.begin(), reports.end(),
            [](const FileStatus& a, const FileStatus& b) { return a.path < b.path; });
  return reports;
}

}  // namespace aprime::engine
