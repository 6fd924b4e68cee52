#include "host/os/message_socket.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "host/os/failure.hpp"

namespace aprime::os {
namespace {

constexpr std::size_t kLengthBytes = 4;
constexpr std::size_t kReadBytes = std::size_t{64} << 10;
constexpr int kWaitingMax = 128;
/// For a process that is about to end and to take its socket file away; it may have much to write before.
constexpr std::chrono::seconds kPredecessorPatience{60};

std::size_t length_at(const std::string& bytes) noexcept {
  std::size_t length = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i)
    length |= std::size_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  return length;
}

/// False if the path is too long for a socket.
bool set_address(const std::string& path, ::sockaddr_un* address) noexcept {
  *address = {};
  address->sun_family = AF_UNIX;
  if (path.size() >= sizeof address->sun_path) return false;
  std::memcpy(address->sun_path, path.data(), path.size());
  return true;
}

const ::sockaddr* generic(const ::sockaddr_un& address) noexcept {
  return reinterpret_cast<const ::sockaddr*>(&address);
}

/// In words; empty if it is this user's, and nobody else can get at what it holds.
std::string what_is_wrong_with(const std::string& directory) {
  struct ::stat s {};
  if (::lstat(directory.c_str(), &s) != 0) return std::strerror(errno);
  if (!S_ISDIR(s.st_mode)) return "it is no directory";
  if (s.st_uid != ::geteuid()) return fmt::format("it belongs to user {}", s.st_uid);
  if ((s.st_mode & 077) != 0) return "others than its owner get in; remove it, or give it mode 0700";
  return {};
}

}  // namespace

MessageSocket::MessageSocket(Descriptor connected, std::size_t limit, int stop_event) noexcept
    : fd_(std::move(connected)), limit_(limit), stop_event_(stop_event) {
  static_cast<void>(::fcntl(fd_.get(), F_SETFL, O_NONBLOCK));
}

MessageSocket::Outcome MessageSocket::wait_for(short events, Patience patience) const noexcept {
  std::array<::pollfd, 2> fds{{{fd_.get(), events, 0}, {stop_event_, POLLIN, 0}}};
  const int ready = ::poll(fds.data(), fds.size(), patience ? static_cast<int>(patience->count()) : -1);
  if (ready < 0) return errno == EINTR ? Outcome::timed_out : Outcome::closed;
  if (fds[1].revents != 0) return Outcome::stopped;
  return ready == 0 ? Outcome::timed_out : Outcome::done;
}

MessageSocket::Outcome MessageSocket::send(std::string_view message) {
  std::string bytes;
  for (std::size_t i = 0; i < kLengthBytes; ++i) bytes += static_cast<char>(message.size() >> (8 * i) & 0xff);
  bytes += message;
  for (std::size_t sent = 0; sent < bytes.size();) {
    const ssize_t n = ::send(fd_.get(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n >= 0) {
      sent += static_cast<std::size_t>(n);
    } else if (errno == EAGAIN) {
      const Outcome outcome = wait_for(POLLOUT, std::nullopt);
      if (outcome == Outcome::stopped || outcome == Outcome::closed) return outcome;
    } else if (errno != EINTR) {
      return Outcome::closed;
    }
  }
  return Outcome::done;
}

bool MessageSocket::has_room() const noexcept {
  // The system says so only while most of its buffer is free.
  ::pollfd fd{fd_.get(), POLLOUT, 0};
  return ::poll(&fd, 1, 0) == 1 && (fd.revents & POLLOUT) != 0;
}

bool MessageSocket::take(std::string* message) {
  if (received_.size() < kLengthBytes) return false;
  const std::size_t length = length_at(received_);
  if (received_.size() - kLengthBytes < length) return false;
  *message = received_.substr(kLengthBytes, length);
  received_.erase(0, kLengthBytes + length);
  return true;
}

MessageSocket::Outcome MessageSocket::receive(std::string* message, Patience patience) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point end = Clock::now() + patience.value_or(std::chrono::milliseconds{0});
  for (;;) {
    if (received_.size() >= kLengthBytes && length_at(received_) > limit_) return Outcome::too_large;
    if (take(message)) return Outcome::done;
    std::array<char, kReadBytes> part;
    const ssize_t n = ::recv(fd_.get(), part.data(), part.size(), 0);
    if (n > 0) {
      received_.append(part.data(), static_cast<std::size_t>(n));
      continue;
    }
    if (n == 0 || (errno != EAGAIN && errno != EINTR)) return Outcome::closed;
    Patience left;
    if (patience) {
      left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now());
      if (left->count() <= 0) left = std::chrono::milliseconds{0};
    }
    const Outcome outcome = wait_for(POLLIN, left);
    if (outcome == Outcome::stopped || outcome == Outcome::closed) return outcome;
    if (outcome == Outcome::timed_out && patience) return outcome;
  }
}

std::optional<uid_t> MessageSocket::peer_user() const noexcept {
  ::ucred peer{};
  ::socklen_t size = sizeof peer;
  if (::getsockopt(fd_.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return std::nullopt;
  return peer.uid;
}

ListeningSocket::ListeningSocket(const std::string& directory, const std::string& name)
    : path_(directory + "/" + name) {
  const auto refuse = [&](const std::string& what, const std::string& why, int error) {
    throw Error(Errc::resources, fmt::format("cannot use '{}': {}", what, why), what, error);
  };
  if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST)
    refuse(directory, std::strerror(errno), errno);
  if (const std::string wrong = what_is_wrong_with(directory); !wrong.empty()) refuse(directory, wrong, 0);
  ::sockaddr_un address{};
  if (!set_address(path_, &address)) refuse(path_, "it is too long for a socket", ENAMETOOLONG);
  fd_ = Descriptor(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd_) refuse(path_, std::strerror(errno), errno);
  // The file gets the mode of the socket, so that there is no moment in which it has another one.
  if (::fchmod(fd_.get(), 0600) != 0) refuse(path_, std::strerror(errno), errno);
  const auto end = std::chrono::steady_clock::now() + kPredecessorPatience;
  while (::bind(fd_.get(), generic(address), sizeof address) != 0) {
    if (errno != EADDRINUSE) refuse(path_, std::strerror(errno), errno);
    Descriptor alive;
    const int error = connect_to(path_, &alive);
    if (error == ECONNREFUSED) {
      ::unlink(path_.c_str());
    } else if (error != 0 && error != ENOENT) {
      refuse(path_, "something else is there", error);
    } else if (std::chrono::steady_clock::now() > end) {
      refuse(path_, "another process listens there", EADDRINUSE);
    } else {
      // That one may accept nobody any more, but its end closes all connections.
      ::pollfd predecessor{alive.get(), POLLIN, 0};
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
      if (alive) static_cast<void>(::poll(&predecessor, 1, std::max(0, static_cast<int>(left.count()))));
      std::this_thread::sleep_for(std::chrono::milliseconds{10});
    }
  }
  struct ::stat s {};
  if (::lstat(path_.c_str(), &s) == 0) file_ = {s.st_dev, s.st_ino};
  if (::listen(fd_.get(), kWaitingMax) != 0) {
    const int error = errno;
    ::unlink(path_.c_str());
    refuse(path_, std::strerror(error), error);
  }
}

ListeningSocket::~ListeningSocket() {
  // Somebody may have taken it for one that was left behind, and listen at its place.
  struct ::stat s {};
  if (::lstat(path_.c_str(), &s) == 0 && FileIdentity{s.st_dev, s.st_ino} == file_) ::unlink(path_.c_str());
}

Descriptor ListeningSocket::accept() const noexcept {
  return Descriptor(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

int connect_to(const std::string& path, Descriptor* connected) noexcept {
  ::sockaddr_un address{};
  if (!set_address(path, &address)) return ENOENT;
  struct ::stat s {};
  if (::lstat(path.c_str(), &s) != 0) return errno;
  if (!S_ISSOCK(s.st_mode) || s.st_uid != ::geteuid() || (s.st_mode & 077) != 0) return EPERM;
  Descriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return errno;
  while (::connect(fd.get(), generic(address), sizeof address) != 0)
    if (errno != EINTR) return errno;
  *connected = std::move(fd);
  return 0;
}

}  // namespace aprime::os
