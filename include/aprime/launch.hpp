#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "aprime/detail/paging.hpp"
#include "aprime/detail/thread_cursor.hpp"
#include "aprime/device_span.hpp"
#include "aprime/error.hpp"
#include "aprime/grid.hpp"
#include "aprime/lease.hpp"

namespace aprime {

/// How a launch ended.
struct DeviceFaultStatus {
  Errc code = Errc::ok;
  /// The kernel's name, and what happened, in words, with file, offset and right where there are any.
  std::string kernel;
  std::string message;
  /// The file whose access failed; empty if the failure was not on a mapping.
  std::string path;
  ByteOffset offset{};
  int system_error = 0;
  bool was_write = false;

  bool is_ok() const noexcept { return code == Errc::ok; }
};

namespace detail {
struct CompletionState;
}

/// The end of a launch. Copies refer to the same launch. May be dropped: the launch runs to its end all the
/// same, and the runtime waits for it when it closes. Thread-safe.
class Completion {
 public:
  Completion() = default;
  explicit Completion(std::shared_ptr<detail::CompletionState> state) noexcept;

  /// Blocks until the launch has ended and its rights are back. \throws Error if it did not end well.
  void wait() const;
  /// The same without throwing.
  DeviceFaultStatus status() const;
  bool done() const noexcept;

 private:
  std::shared_ptr<detail::CompletionState> state_;
};

/// How and where to launch.
struct LaunchOptions {
  /// Number of the device in `Runtime::devices()`.
  unsigned device = 0;
  /// Name for messages and profiles; the kernel's type if empty.
  std::string name;
};

namespace detail {

/// Where the bytes of one request of a launch are.
struct LeasedMemory {
  /// Of a lease; null for what is faulted in on demand.
  std::byte* data;
  /// In bytes.
  std::size_t size;
  /// On demand: the file's window, and the first byte in it.
  PagedWindow window{};
  std::uint64_t first = 0;
};

/// A launch whose arguments are known but whose leases are not yet placed.
class LaunchClosure {
 public:
  virtual ~LaunchClosure() = default;
  /// Makes the arguments final. `leased` holds one entry for each request, in the order of the launch's
  /// arguments.
  virtual void bind(std::span<const LeasedMemory> leased) = 0;
  /// The body for the grid executor; valid while the closure lives. \pre bind was called
  virtual KernelBody body() const noexcept = 0;
  /// Runs it once on the calling thread. \pre bind was called; the launch is a task
  virtual void run_task() = 0;
};

/// What a kernel receives for an argument of a launch.
template <class A>
struct BoundArgument {
  using type = std::decay_t<A>;
  static constexpr bool is_request = false;
};
template <Right right>
struct BoundArgument<LeaseArgument<right>> {
  using type = LeasedBytes<right>;
  static constexpr bool is_request = true;
  static type bind(const LeasedMemory& at) noexcept { return {at.data, at.size}; }
};
template <Right right>
struct BoundArgument<DemandArgument<right>> {
  using type = DemandBytes<right>;
  static constexpr bool is_request = true;
  static type bind(const LeasedMemory& at) noexcept { return {at.window, at.first, at.size}; }
};

template <class Kernel, class... Args>
class ClosureFor final : public LaunchClosure {
 public:
  ClosureFor(Kernel kernel, std::tuple<std::decay_t<Args>...> args, std::string name)
      : kernel_(std::move(kernel)), args_(std::move(args)), name_(std::move(name)) {}

  void bind(std::span<const LeasedMemory> leased) override {
    std::size_t next = 0;
    bind_each(leased, next, std::index_sequence_for<Args...>{});
  }
  KernelBody body() const noexcept override { return {this, &run_threads, name_.c_str()}; }
  void run_task() override { std::apply(kernel_, bound_); }

 private:
  using Bound = std::tuple<typename BoundArgument<std::decay_t<Args>>::type...>;

  template <std::size_t... I>
  void bind_each([[maybe_unused]] std::span<const LeasedMemory> leased, [[maybe_unused]] std::size_t& next,
                 std::index_sequence<I...>) {
    (bind_one<I>(leased, next), ...);
  }
  template <std::size_t I>
  void bind_one(std::span<const LeasedMemory> leased, std::size_t& next) {
    using Argument = std::tuple_element_t<I, std::tuple<std::decay_t<Args>...>>;
    if constexpr (BoundArgument<Argument>::is_request) {
      std::get<I>(bound_) = BoundArgument<Argument>::bind(leased[next++]);
    } else {
      std::get<I>(bound_) = std::get<I>(args_);
    }
  }
  /// Only instantiated for grids: a task's callable need not be callable as a kernel is.
  static void run_threads(const void* closure, ThreadCursor& cursor) {
    const auto* self = static_cast<const ClosureFor*>(closure);
    const Bound bound = self->bound_;
    while (cursor.next()) std::apply(self->kernel_, bound);
  }

  Kernel kernel_;
  std::tuple<std::decay_t<Args>...> args_;
  Bound bound_{};
  std::string name_;
};

template <class A>
void collect_request(std::vector<LeaseRequest>&, const A&) {}
template <Right right>
void collect_request(std::vector<LeaseRequest>& out, const LeaseArgument<right>& a) {
  out.push_back(a.request);
}
template <Right right>
void collect_request(std::vector<LeaseRequest>& out, const DemandArgument<right>& a) {
  out.push_back(a.request);
}

template <class A>
inline constexpr bool is_on_demand = false;
template <Right right>
inline constexpr bool is_on_demand<DemandArgument<right>> = true;

/// Name of a type for people, without namespace noise.
std::string readable_name(const char* mangled);

}  // namespace detail

}  // namespace aprime
