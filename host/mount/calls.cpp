#include "host/mount/calls.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <utility>

#include "host/mount/protocol.hpp"
#include "host/os/failure.hpp"
#include "host/os/quiet_thread.hpp"

namespace aprime::mount {
namespace {

using Outcome = os::MessageSocket::Outcome;

/// Each call may be a run on the devices: more than these are not meant.
constexpr std::size_t kCallsMax = 64;
/// Whoever connects says at once what he wants.
constexpr std::chrono::seconds kRequestPatience{30};

os::Descriptor make_event() {
  os::Descriptor event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event) throw os::failure(Errc::resources, "cannot make an event descriptor", errno);
  return event;
}

/// In the best directory that can be used.
std::unique_ptr<os::ListeningSocket> listen_for(std::uint64_t device) {
  std::string reasons;
  for (const std::string& directory : socket_directories(::geteuid())) {
    try {
      return std::make_unique<os::ListeningSocket>(directory, socket_name(device));
    } catch (const Error& error) {
      reasons += (reasons.empty() ? "" : "; ") + std::string(error.what());
    }
  }
  throw Error(Errc::resources, "no place for the mount's socket: " + reasons);
}

class Call final : public MountCall {
 public:
  Call(os::MessageSocket& socket, MountMessage request, std::uint64_t device, const CallHandlers& handlers)
      : socket_(socket), request_(std::move(request)), device_(device), handlers_(handlers) {}

  const MountMessage& request() const noexcept override { return request_; }
  const std::string& source() const noexcept override { return handlers_.source; }
  const std::string& mountpoint() const noexcept override { return handlers_.mountpoint; }
  Mapping map(const std::string& path, Access access, const MapOptions& options) override {
    return handlers_.map(path, access, options);
  }

  bool send(const MountMessage& message) override {
    if (!is_over_) is_over_ = socket_.send(encode(message, device_)) != Outcome::done;
    return !is_over_;
  }
  void offer(const MountMessage& message) override {
    if (socket_.has_room()) send(message);
  }
  std::optional<MountMessage> receive() override { return receive_within(std::nullopt); }
  std::optional<MountMessage> receive_now() override {
    if (waiting_) return std::exchange(waiting_, std::nullopt);
    return receive_within(std::chrono::milliseconds{0});
  }
  bool is_over() override {
    if (!is_over_ && !waiting_) waiting_ = receive_within(std::chrono::milliseconds{0});
    return is_over_;
  }

 private:
  std::optional<MountMessage> receive_within(os::MessageSocket::Patience patience) {
    if (waiting_) return std::exchange(waiting_, std::nullopt);
    std::string text;
    const Outcome outcome = is_over_ ? Outcome::closed : socket_.receive(&text, patience);
    if (outcome == Outcome::done) return decode(text, device_);
    if (outcome != Outcome::timed_out) is_over_ = true;
    return std::nullopt;
  }

  os::MessageSocket& socket_;
  const MountMessage request_;
  const std::uint64_t device_;
  const CallHandlers& handlers_;
  bool is_over_ = false;
  /// Received while nobody had asked for it.
  std::optional<MountMessage> waiting_;
};

}  // namespace

Calls::Calls(std::uint64_t device, CallHandlers handlers)
    : device_(device),
      handlers_(std::move(handlers)),
      stop_event_(make_event()),
      socket_(listen_for(device)) {
  acceptor_ = os::start_quiet_thread([this] { accept_calls(); });
}

Calls::~Calls() { stop(); }

void Calls::stop() noexcept {
  const std::uint64_t one = 1;
  static_cast<void>(::write(stop_event_.get(), &one, sizeof one) == sizeof one);
  if (acceptor_.joinable()) acceptor_.join();
  std::list<Thread> threads;
  {
    const sync::Lock lock(mutex_);
    threads.swap(threads_);
  }
  for (Thread& t : threads) t.thread.join();
}

void Calls::tell_end(const MountMessage& answer) {
  const std::string text = encode(answer, device_);
  const sync::Lock lock(mutex_);
  // Short, and to those who were told next to nothing yet: it needs no waiting.
  for (const auto& socket : leaving_) socket->send(text);
}

void Calls::accept_calls() noexcept {
  for (;;) {
    std::array<::pollfd, 2> fds{{{socket_->descriptor(), POLLIN, 0}, {stop_event_.get(), POLLIN, 0}}};
    if (::poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) return;
    if (fds[1].revents != 0) return;
    os::Descriptor connected = socket_->accept();
    if (!connected) {
      // Out of descriptors: the connection stays in the queue until some are free.
      if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) static_cast<void>(::poll(&fds[1], 1, 10));
      continue;
    }
    try {
      begin(std::move(connected));
    } catch (const std::exception&) {
      // No memory or no thread: the caller sees that the connection has ended.
    }
  }
}

void Calls::begin(os::Descriptor connected) {
  std::list<Thread> ended;
  std::size_t calls = 0;
  {
    const sync::Lock lock(mutex_);
    for (auto t = threads_.begin(); t != threads_.end();) {
      const auto next = std::next(t);
      if (t->has_ended) ended.splice(ended.end(), threads_, t);
      t = next;
    }
    calls = threads_.size();
  }
  for (Thread& t : ended) t.thread.join();
  os::MessageSocket socket(std::move(connected), kRequestMax, stop_event_.get());
  if (calls >= kCallsMax) {
    if (socket.has_room())
      socket.send(
          encode(error_message(Error(Errc::resources, fmt::format("{}: {} calls are in work; try again later",
                                                                  handlers_.mountpoint, calls))),
                 device_));
    return;
  }
  const sync::Lock lock(mutex_);
  Thread& entry = threads_.emplace_back();
  try {
    entry.thread = os::start_quiet_thread(
        [this, &entry, shared = std::make_shared<os::MessageSocket>(std::move(socket))]() mutable {
          answer(shared);
          shared.reset();
          const sync::Lock end(mutex_);
          entry.has_ended = true;
        });
  } catch (...) {
    threads_.pop_back();
    throw;
  }
}

void Calls::answer(const std::shared_ptr<os::MessageSocket>& socket) noexcept {
  try {
    try {
      serve(socket);
    } catch (const std::exception& error) {
      socket->send(encode(error_message(error), device_));
    }
  } catch (const std::exception&) {
    // No memory for the answer either: the caller sees that the connection has ended.
  }
}

void Calls::serve(const std::shared_ptr<os::MessageSocket>& socket) {
  const std::optional<uid_t> user = socket->peer_user();
  if (user != ::geteuid())
    throw Error(Errc::cannot_open, fmt::format("'{}' is the mount of user {}, who alone may ask its process",
                                               handlers_.mountpoint, ::geteuid()));
  std::string text;
  switch (socket->receive(&text, kRequestPatience)) {
    case Outcome::done: break;
    case Outcome::too_large:
      throw Error(Errc::invalid_argument,
                  fmt::format("the message is longer than {} bytes, or is none of aprime's", kRequestMax));
    case Outcome::timed_out: throw Error(Errc::invalid_argument, "no message came");
    case Outcome::closed:
    case Outcome::stopped: return;
  }
  Call call(*socket, decode(text, device_), device_, handlers_);
  if (call.request().type == "status") {
    call.send(status_message(handlers_.status()));
  } else if (call.request().type == kUnmount) {
    serve_unmount(socket);
  } else if (handlers_.serve) {
    serve_own(call);
  } else {
    throw Error(Errc::invalid_argument,
                fmt::format("'{}' is served by a program that does not know '{}': it tells its status only",
                            handlers_.mountpoint, call.request().type));
  }
}

void Calls::serve_own(MountCall& call) {
  try {
    handlers_.serve(call);
  } catch (const std::exception&) {
    throw;
  } catch (...) {
    throw Error(Errc::resources,
                fmt::format("the program that serves '{}' threw something that is no std::exception at '{}'",
                            handlers_.mountpoint, call.request().type));
  }
}

void Calls::serve_unmount(const std::shared_ptr<os::MessageSocket>& socket) {
  const std::string heard = encode({kUnmount}, device_);
  if (socket->send(heard) != Outcome::done) return;
  std::string text;
  const Outcome outcome = socket->receive(&text, std::nullopt);
  if (outcome == Outcome::stopped || (outcome == Outcome::done && handlers_.has_ended())) {
    const sync::Lock lock(mutex_);
    leaving_.push_back(socket);
  } else if (outcome == Outcome::done) {
    socket->send(heard);
  }
}

}  // namespace aprime::mount
