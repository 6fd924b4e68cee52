#include "host/mount/workers.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <system_error>
#include <utility>

#include "host/mount/fuse.hpp"
#include "host/os/acting_as.hpp"
#include "host/os/failure.hpp"
#include "host/os/quiet_thread.hpp"

namespace aprime::mount {
namespace {

constexpr unsigned kIdleMax = 3;
constexpr std::size_t kWorkersMax = 4096;

os::Descriptor make_event() {
  os::Descriptor event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event) throw os::failure(Errc::resources, "cannot make an event descriptor", errno);
  return event;
}

}  // namespace

/// How a worker waits for a request. Each that waits has an epoll descriptor to itself, by which the kernel
/// wakes one of them for each request, not all. Without one (there may be no descriptor left) it waits with
/// poll, and is woken too often.
class Workers::RequestWait {
 public:
  RequestWait(int requests, int stop)
      : what_{{{requests, POLLIN, 0}, {stop, POLLIN, 0}}}, epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    if (epoll_ && (!add(requests, EPOLLIN | EPOLLEXCLUSIVE) || !add(stop, EPOLLIN)))
      epoll_ = os::Descriptor();
  }

  /// Whether it is of use to another worker.
  bool is_exclusive() const noexcept { return static_cast<bool>(epoll_); }

  /// False: there is nothing more to be done.
  bool wait() {
    for (;;) {
      epoll_event event{};
      const int ready =
          epoll_ ? ::epoll_wait(epoll_.get(), &event, 1, -1) : ::poll(what_.data(), what_.size(), -1);
      if (ready < 0 && errno == EINTR) continue;
      return ready > 0 && (epoll_ ? event.data.fd == what_[0].fd : what_[1].revents == 0);
    }
  }

 private:
  bool add(int fd, std::uint32_t events) {
    epoll_event event{.events = events, .data = {.fd = fd}};
    return ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
  }

  std::array<pollfd, 2> what_;
  os::Descriptor epoll_;
};

Workers::Workers(fuse_session& session) : session_(session), stop_event_(make_event()) {
  spare_waits_.reserve(kIdleMax);
}

Workers::~Workers() { stop(); }

void Workers::start() {
  // Several workers may see the same request; all but one of them must find nothing, and not sleep on.
  const int fd = ::fuse_session_fd(&session_);
  if (::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK) != 0)
    throw os::failure(Errc::resources, "cannot prepare /dev/fuse", errno);
  const sync::Lock lock(mutex_);
  add_worker();
}

void Workers::add_worker() {
  running_.emplace_back();
  const auto self = std::prev(running_.end());
  try {
    *self = os::start_quiet_thread([this, self] { run(self); });
  } catch (...) {
    running_.erase(self);
    throw;
  }
  ++idle_;
}

void Workers::run(std::list<std::thread>::iterator self) noexcept {
  os::drop_mode_mask_of_thread();
  serve();
  const sync::Lock lock(mutex_);
  finished_.splice(finished_.end(), running_, self);
  if (running_.empty()) ended_.notify_all();
}

void Workers::serve() noexcept {
  RequestWait next = obtain_wait();
  fuse_buf request{};
  while (next.wait()) {
    const int got = ::fuse_session_receive_buf(&session_, &request);
    if (got == -EAGAIN || got == -EINTR) continue;
    if (got <= 0) break;  // unmounted
    begin_work(std::move(next));
    ::fuse_session_process_buf(&session_, &request);
    if (!end_work()) {
      std::free(request.mem);
      return;
    }
    next = obtain_wait();
  }
  std::free(request.mem);
  const sync::Lock lock(mutex_);
  --idle_;
}

Workers::RequestWait Workers::obtain_wait() noexcept {
  {
    const sync::Lock lock(mutex_);
    if (!spare_waits_.empty()) {
      RequestWait wait = std::move(spare_waits_.back());
      spare_waits_.pop_back();
      return wait;
    }
  }
  return {::fuse_session_fd(&session_), stop_event_.get()};
}

void Workers::begin_work(RequestWait wait) noexcept {
  std::list<std::thread> to_join;
  {
    const sync::Lock lock(mutex_);
    // Idle workers, of whom there are no more than that, have all others.
    if (wait.is_exclusive() && spare_waits_.size() < kIdleMax) spare_waits_.push_back(std::move(wait));
    to_join.swap(finished_);
    if (--idle_ == 0 && running_.size() < kWorkersMax && !is_stopping_) {
      try {
        add_worker();
      } catch (const std::system_error&) {
        // No more threads to be had: requests wait in the kernel until a worker is done.
      } catch (const std::bad_alloc&) {
      }
    }
  }
  for (std::thread& thread : to_join) thread.join();
}

bool Workers::end_work() noexcept {
  const sync::Lock lock(mutex_);
  if (idle_ >= kIdleMax) return false;
  ++idle_;
  return true;
}

void Workers::wait() {
  std::list<std::thread> to_join;
  {
    const sync::Lock lock(mutex_);
    while (!running_.empty()) ended_.wait(mutex_);
    to_join.swap(finished_);
  }
  for (std::thread& thread : to_join) thread.join();
}

void Workers::stop() noexcept {
  {
    const sync::Lock lock(mutex_);
    is_stopping_ = true;
  }
  const std::uint64_t one = 1;
  static_cast<void>(::write(stop_event_.get(), &one, sizeof one));
  wait();
}

}  // namespace aprime::mount
