#include "host/mount/workers.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <exception>

#include "host/os/acting_as.hpp"
#include "host/os/failure.hpp"
#include "host/os/quiet_thread.hpp"

namespace aprime::mount {
namespace {

/// Each request wakes all that are idle. With a few of them one is likely to be on a processor that is awake,
/// and serves it in half the time that it takes to wake another; so no effort is made to wake only one. But
/// those that are woken for nothing do not stop the program that woke them: with that, sequential reads are 5
/// to 9 % faster, and small ones on a busy machine take 20 us, not 50.
constexpr unsigned kIdleMax = 3;
/// Some 30 us. To be woken takes a worker most of the time in which a program that reads a file in order asks
/// for the next part, and costs that program a tenth of its own: looked for, it gets a quarter more.
constexpr int kLooksMax = 50;
constexpr std::size_t kWorkersMax = 4096;

os::Descriptor make_event() {
  os::Descriptor event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event) throw os::failure(Errc::resources, "cannot make an event descriptor", errno);
  return event;
}

}  // namespace

Workers::Workers(fuse_session& session) : session_(session), stop_event_(make_event()) {}

Workers::~Workers() { stop(); }

void Workers::start() {
  // Several workers may see the same request arrive; all but one of them must find nothing, and not sleep on.
  const int fd = ::fuse_session_fd(&session_);
  if (::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK) != 0)
    throw os::failure(Errc::resources, "cannot prepare /dev/fuse", errno);
  const sync::Lock lock(mutex_);
  add_worker();
}

void Workers::add_worker() {
  running_.emplace_back(running_.size() <= kIdleMax);
  const auto self = std::prev(running_.end());
  try {
    self->thread = os::start_quiet_thread([this, self] { run(self); });
  } catch (...) {
    running_.erase(self);
    throw;
  }
  ++idle_;
}

void Workers::run(std::list<Worker>::iterator self) noexcept {
  os::drop_mode_mask_of_thread();
  os::wait_for_turn();
  serve(self->buffer);
  const sync::Lock lock(mutex_);
  finished_.splice(finished_.end(), running_, self);
  if (running_.empty()) ended_.notify_all();
}

void Workers::serve(RequestBuffer& buffer) noexcept {
  bool expects_more = false;
  for (;;) {
    // Before it waits: while many requests come there is one already.
    int got = buffer.receive(session_);
    if (got == -EAGAIN && expects_more) got = keep_looking(buffer);
    if (got == -EINTR || (got == -EAGAIN && wait_for_request())) continue;
    if (got <= 0) break;  // unmounted, or to be stopped
    begin_work();
    expects_more = buffer.process(session_);
    if (!end_work()) return;
  }
  const sync::Lock lock(mutex_);
  --idle_;
}

int Workers::keep_looking(RequestBuffer& buffer) noexcept {
  if (somebody_looks_.exchange(true)) return -EAGAIN;
  int got = -EAGAIN;
  for (int looks = 0; got == -EAGAIN && looks < kLooksMax; ++looks) {
    ::sched_yield();
    got = buffer.receive(session_);
  }
  somebody_looks_.store(false);
  return got;
}

bool Workers::wait_for_request() noexcept {
  std::array<pollfd, 2> what{{{::fuse_session_fd(&session_), POLLIN, 0}, {stop_event_.get(), POLLIN, 0}}};
  for (;;) {
    const int ready = ::poll(what.data(), what.size(), -1);
    if (ready < 0 && errno == EINTR) continue;
    return ready > 0 && what[1].revents == 0;
  }
}

void Workers::begin_work() noexcept {
  std::list<Worker> to_join;
  {
    const sync::Lock lock(mutex_);
    to_join.swap(finished_);
    if (--idle_ == 0 && running_.size() < kWorkersMax && !is_stopping_) {
      try {
        add_worker();
      } catch (const std::exception&) {
        // No more threads or memory to be had: requests wait in the kernel until a worker is done.
      }
    }
  }
  for (Worker& worker : to_join) worker.thread.join();
}

bool Workers::end_work() noexcept {
  const sync::Lock lock(mutex_);
  if (idle_ >= kIdleMax || is_stopping_) return false;
  ++idle_;
  return true;
}

void Workers::wait() {
  // Several may wait, and none may go on while another still joins: the session, which has something of each
  // thread that this frees at its very end, is gone then.
  const sync::Lock joining(join_mutex_);
  std::list<Worker> to_join;
  {
    const sync::Lock lock(mutex_);
    while (!running_.empty()) ended_.wait(mutex_);
    to_join.swap(finished_);
  }
  for (Worker& worker : to_join) worker.thread.join();
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
