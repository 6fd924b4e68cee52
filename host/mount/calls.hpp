#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>

#include "aprime/mount_call.hpp"
#include "aprime/mount_status.hpp"
#include "host/os/file.hpp"
#include "host/os/message_socket.hpp"
#include "host/sync/mutex.hpp"

namespace aprime::mount {

/// What a mount's process answers calls with. Called by several threads at once.
struct CallHandlers {
  std::string source;
  std::string mountpoint;
  std::function<MountStatus()> status;
  std::function<Mapping(const std::string&, Access, const MapOptions&)> map;
  /// Whether nobody can use the mount any more.
  std::function<bool()> has_ended;
  /// For calls of all other types; may be empty.
  std::function<void(MountCall&)> serve;
};

/// The socket of a mount, and a thread for each call. Only processes of the same user are answered.
class Calls {
 public:
  /// Calls are answered from now on. \throws Error(resources)
  Calls(std::uint64_t device, CallHandlers handlers);
  /// As `stop`; then takes the socket away.
  ~Calls();
  Calls(const Calls&) = delete;
  Calls& operator=(const Calls&) = delete;

  /// Accepts no more calls, tells those in work that they are over, and waits for them. The socket stays: who
  /// connects to it waits for the end of this object.
  void stop() noexcept;
  /// Answers those who unmounted and wait for the end. \pre stopped
  void tell_end(const MountMessage& answer);

 private:
  struct Thread {
    std::thread thread;
    bool has_ended = false;
  };

  void accept_calls() noexcept;
  void begin(os::Descriptor connected);
  void answer(const std::shared_ptr<os::MessageSocket>& socket) noexcept;
  void serve(const std::shared_ptr<os::MessageSocket>& socket);
  /// \throws std::exception of some kind, whatever the program's own function throws
  void serve_own(MountCall& call);
  void serve_unmount(const std::shared_ptr<os::MessageSocket>& socket);

  const std::uint64_t device_;
  const CallHandlers handlers_;
  const os::Descriptor stop_event_;
  std::unique_ptr<os::ListeningSocket> socket_;
  std::thread acceptor_;

  sync::Mutex mutex_{sync::LockRank::workers};
  std::list<Thread> threads_ APRIME_GUARDED_BY(mutex_);
  /// Of those who unmounted.
  std::list<std::shared_ptr<os::MessageSocket>> leaving_ APRIME_GUARDED_BY(mutex_);
};

}  // namespace aprime::mount
