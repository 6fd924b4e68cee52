#include "kernels/bfs.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "kernels/bfs_kernel.hpp"
#include "kernels/csr_file.hpp"
#include "kernels/fingerprint.hpp"
#include "kernels/scratch.hpp"
#include "kernels/vectors.hpp"

namespace aprime::kernels {
namespace {

constexpr Argument kArguments[] = {
    {"GRAPH", "file of compressed sparse rows, square (the README has the format); values are not looked at",
     Access::read},
    {"--source", "number of the vertex to begin with, from 0", &Arguments::source, true, 0},
};

/// What becomes of the levels of all vertices: two different ones have different digests but for about one
/// case in 2^64.
class LevelDigest {
 public:
  void add(std::uint64_t vertex, std::uint32_t level) noexcept { sum_ += scramble(scramble(vertex) + level); }
  std::uint64_t value() const noexcept { return sum_; }

 private:
  std::uint64_t sum_ = 0;
};

/// A search with one queue. Holds the graph in memory.
class BfsCheck final : public Check {
 public:
  BfsCheck(const Arguments& arguments, const RunFile& graph)
      : graph_(graph), source_(static_cast<std::uint32_t>(arguments.source)) {}

  std::string disagreement(const Result& result) override {
    search();
    std::uint64_t depth = 0;
    std::uint64_t reached = 0;
    LevelDigest digest;
    for (std::uint64_t vertex = 0; vertex < levels_.size(); ++vertex) {
      digest.add(vertex, levels_[vertex]);
      if (levels_[vertex] == kUnreached) continue;
      ++reached;
      depth = std::max<std::uint64_t>(depth, levels_[vertex]);
    }
    const Result expected{{"reached", reached}, {"depth", depth}, {"digest", digest.value()}};
    for (std::size_t i = 0; i < expected.size(); ++i) {
      if (expected[i] == result[i]) continue;
      return result[i].first + " is " + std::to_string(std::get<std::uint64_t>(result[i].second)) +
             "; the CPU gets " + std::to_string(std::get<std::uint64_t>(expected[i].second));
    }
    return {};
  }

 private:
  void search() {
    CsrHeader header{};
    PlainFile(graph_).next(std::as_writable_bytes(std::span(&header, 1)));
    const auto offsets = elements<std::uint64_t>(header.offsets_at, header.rows + 1);
    const auto columns = elements<std::uint32_t>(header.columns_at, header.nonzeros);
    levels_.assign(header.rows, kUnreached);
    std::vector<std::uint32_t> queue{source_};
    levels_[source_] = 0;
    for (std::size_t first = 0; first < queue.size(); ++first) {
      const std::uint32_t vertex = queue[first];
      for (std::uint64_t edge = offsets[vertex]; edge < offsets[vertex + std::size_t{1}]; ++edge) {
        std::uint32_t& level = levels_.at(columns[edge]);
        if (level != kUnreached) continue;
        level = levels_[vertex] + 1;
        queue.push_back(columns[edge]);
      }
    }
  }

  template <class T>
  std::vector<T> elements(std::uint64_t offset, std::uint64_t count) const {
    std::vector<T> read(count);
    PlainFile file(graph_);
    file.seek(offset);
    file.next(std::as_writable_bytes(std::span(read)));
    return read;
  }

  RunFile graph_;
  std::uint32_t source_;
  std::vector<std::uint32_t> levels_;
};

void validate(const Arguments& arguments, std::span<const Mapping> files) {
  const CsrFile graph(files[0], false);
  graph.require_square("a graph");
  if (arguments.source >= graph.rows()) {
    throw InputError(arguments.files[0] + ": has " + std::to_string(graph.rows()) +
                     " vertices, and so no number " + std::to_string(arguments.source) +
                     "; give a smaller --source");
  }
}

/// Breadth-first search, level by level: a launch for each, with the frontiers in queues (Merrill, Garland,
/// Grimshaw, "Scalable GPU graph traversal", PPoPP 2012). Levels do not depend on the order in which threads
/// find vertices.
class Search {
 public:
  Search(Session& session, const CsrFile& graph)
      : session_(session),
        graph_(graph),
        levels_(session.runtime(), ByteCount{graph.rows() * sizeof(std::uint32_t)}),
        queues_{Scratch(session.runtime(), levels_.mapping().size_bytes()),
                Scratch(session.runtime(), levels_.mapping().size_bytes())},
        state_(session.runtime(), ByteCount{sizeof(BfsState)}) {}

  Result run(std::uint32_t source) {
    fill(session_, levels_.mapping(), kUnreached);
    put(levels_.mapping(), source * std::uint64_t{sizeof source}, std::uint32_t{0});
    put(queues_[0].mapping(), 0, source);
    std::uint64_t reached = 0;
    std::uint32_t level = 0;
    session_.progress().begin("searching", levels_.mapping().size_bytes());
    for (std::uint64_t count = 1; count != 0; ++level) {
      reached += count;
      const std::uint64_t found = search_level(level + 1, count);
      session_.progress().advance(ByteCount{count * sizeof(std::uint32_t)});
      count = found;
    }
    return {{"reached", reached}, {"depth", std::uint64_t{level - 1}}, {"digest", digest()}};
  }

 private:
  /// Returns how many vertices the next level has.
  std::uint64_t search_level(std::uint32_t level, std::uint64_t count) {
    put(state_.mapping(), 0, BfsState{.problems = {}, .found = 0});
    const BfsKernel kernel{
        .count = count, .level = level, .vertices = graph_.rows(), .edges = graph_.nonzeros()};
    const Mapping& file = graph_.mapping();
    session_.run("bfs", Grid::cover(std::min(count, kThreadsMax), BfsKernel::kThreads), kernel,
                 demand_read(file, graph_.offset_bytes(0, graph_.rows())),
                 demand_read(file, graph_.column_bytes(0, graph_.nonzeros())),
                 demand_read(queues_[(level - 1) % 2].mapping()),
                 demand_read_write(queues_[level % 2].mapping()), demand_read_write(levels_.mapping()),
                 read_write(state_.mapping()));
    BfsState state{};
    state_.read(std::span(&state, 1));
    graph_.require_none(state.problems);
    return state.found;
  }

  template <class T>
  static void put(const Mapping& mapping, std::uint64_t at, const T& value) {
    mapping.write(ByteOffset{at}, std::as_bytes(std::span(&value, 1)));
  }

  std::uint64_t digest() const {
    LevelDigest digest;
    std::vector<std::uint32_t> block(std::size_t{1} << 16);
    Session::for_each_range(levels_.mapping().size_bytes(), ByteCount{block.size() * sizeof block[0]},
                            [&](ByteRange range) {
                              const std::span part(block.data(), range.size.value / sizeof block[0]);
                              levels_.mapping().read(range.first, std::as_writable_bytes(part));
                              std::uint64_t vertex = range.first.value / sizeof block[0];
                              for (const std::uint32_t level : part) digest.add(vertex++, level);
                            });
    return digest.value();
  }

  static constexpr std::uint64_t kThreadsMax = std::uint64_t{1} << 20;

  Session& session_;
  const CsrFile& graph_;
  Scratch levels_;
  /// The frontier and the next one, by turns.
  std::array<Scratch, 2> queues_;
  Scratch state_;
};

Result run(Session& session, const Arguments& arguments, std::span<const Mapping> files) {
  const CsrFile graph(files[0], false);
  return Search(session, graph).run(static_cast<std::uint32_t>(arguments.source));
}

}  // namespace

constinit const Workload bfs{
    .name = "bfs",
    .help = "breadth-first search of a graph, by faults of the running kernel; counts the vertices reached",
    .arguments = kArguments,
    .element_bytes = 1,
    .stoppable = true,
    .needs_disk_space = false,
    .validate = validate,
    .make_check = [](const Arguments& arguments, std::span<const RunFile> files) -> std::unique_ptr<Check> {
      return std::make_unique<BfsCheck>(arguments, files[0]);
    },
    .run = run,
};

}  // namespace aprime::kernels
