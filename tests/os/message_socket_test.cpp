#include "host/os/message_socket.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <thread>

namespace aprime::os {
namespace {

using Outcome = MessageSocket::Outcome;
using namespace std::chrono_literals;

constexpr std::size_t kLimit = 1000;

class Sockets : public testing::Test {
 protected:
  Sockets() {
    std::string name = std::filesystem::temp_directory_path() / "aprime-socket-XXXXXX";
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    root_ = name;
    directory_ = root_ + "/aprime";
  }
  ~Sockets() override { std::filesystem::remove_all(root_); }

  /// A socket file as a process that was killed leaves it.
  void leave_stale_socket(const std::string& path) {
    const Descriptor fd(::socket(AF_UNIX, SOCK_STREAM, 0));
    ::sockaddr_un address{};
    address.sun_family = AF_UNIX;
    ASSERT_LT(path.size(), sizeof address.sun_path);
    std::memcpy(address.sun_path, path.data(), path.size());
    ASSERT_EQ(::bind(fd.get(), reinterpret_cast<const ::sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
  }

  std::string root_;
  std::string directory_;
};

struct Pair {
  Pair() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    one = MessageSocket(Descriptor(ends[0]), kLimit);
    raw = Descriptor(ends[1]);
  }
  void send_raw(std::string_view bytes) const {
    ASSERT_EQ(::send(raw.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  }
  MessageSocket one;
  Descriptor raw;
};

TEST_F(Sockets, socket_file_is_the_users_alone_and_goes_with_its_owner) {
  struct ::stat s {};
  {
    const ListeningSocket listening(directory_, "a");
    ASSERT_EQ(::stat(directory_.c_str(), &s), 0);
    EXPECT_EQ(s.st_mode & 07777, 0700u);
    ASSERT_EQ(::stat(listening.path().c_str(), &s), 0);
    EXPECT_EQ(s.st_mode & 07777, 0600u);
    Descriptor connected;
    EXPECT_EQ(connect_to(listening.path(), &connected), 0);
    EXPECT_EQ(MessageSocket(listening.accept(), kLimit).peer_user(), ::geteuid());
    EXPECT_FALSE(listening.accept());
  }
  EXPECT_NE(::stat((directory_ + "/a").c_str(), &s), 0);
}

TEST_F(Sockets, stale_socket_file_is_replaced) {
  ASSERT_EQ(::mkdir(directory_.c_str(), 0700), 0);
  leave_stale_socket(directory_ + "/a");
  Descriptor connected;
  EXPECT_EQ(connect_to(directory_ + "/a", &connected), ECONNREFUSED);
  const ListeningSocket listening(directory_, "a");
  EXPECT_EQ(connect_to(listening.path(), &connected), 0);
}

TEST_F(Sockets, process_that_is_about_to_end_is_waited_for) {
  auto first = std::make_unique<ListeningSocket>(directory_, "a");
  std::thread ending([&] {
    std::this_thread::sleep_for(50ms);
    first.reset();
  });
  const ListeningSocket second(directory_, "a");
  ending.join();
  Descriptor connected;
  EXPECT_EQ(connect_to(second.path(), &connected), 0);
}

TEST_F(Sockets, directory_that_others_get_into_is_refused) {
  ASSERT_EQ(::mkdir(directory_.c_str(), 0700), 0);
  ASSERT_EQ(::chmod(directory_.c_str(), 0750), 0);
  EXPECT_THROW(ListeningSocket(directory_, "a"), Error);
  std::filesystem::remove(directory_);
  std::filesystem::create_directory_symlink(root_, directory_);
  EXPECT_THROW(ListeningSocket(directory_, "a"), Error);
  EXPECT_THROW(ListeningSocket(root_ + "/missing/aprime", "a"), Error);
  EXPECT_THROW(ListeningSocket(root_, std::string(200, 'x')), Error);
}

TEST_F(Sockets, socket_open_to_others_is_not_connected_to) {
  const ListeningSocket listening(directory_, "a");
  ASSERT_EQ(::chmod(listening.path().c_str(), 0666), 0);
  Descriptor connected;
  EXPECT_EQ(connect_to(listening.path(), &connected), EPERM);
  EXPECT_EQ(connect_to(directory_ + "/b", &connected), ENOENT);
}

TEST(MessageSocket, messages_arrive_whole_and_in_order) {
  Pair pair;
  MessageSocket other(std::move(pair.raw), kLimit);
  std::string message;
  EXPECT_EQ(other.receive(&message, 0ms), Outcome::timed_out);
  EXPECT_EQ(pair.one.send(""), Outcome::done);
  EXPECT_EQ(pair.one.send(std::string(kLimit, 'x')), Outcome::done);
  EXPECT_EQ(other.receive(&message, {}), Outcome::done);
  EXPECT_EQ(message, "");
  EXPECT_EQ(other.receive(&message, {}), Outcome::done);
  EXPECT_EQ(message, std::string(kLimit, 'x'));
}

TEST(MessageSocket, message_in_pieces_is_put_together) {
  Pair pair;
  std::string message;
  for (const std::string_view piece : {std::string_view("\3\0", 2), std::string_view("\0\0a", 3)}) {
    pair.send_raw(piece);
    EXPECT_EQ(pair.one.receive(&message, 0ms), Outcome::timed_out);
  }
  pair.send_raw("bc");
  EXPECT_EQ(pair.one.receive(&message, {}), Outcome::done);
  EXPECT_EQ(message, "abc");
}

TEST(MessageSocket, announced_length_over_the_limit_is_refused_at_once) {
  Pair pair;
  std::string message;
  pair.send_raw("\377\377\377\377");
  EXPECT_EQ(pair.one.receive(&message, {}), Outcome::too_large);
}

TEST(MessageSocket, end_of_the_other_side_is_told_after_its_last_message) {
  Pair pair;
  std::string message;
  pair.send_raw(std::string_view("\1\0\0\0a\5\0\0\0b", 10));
  pair.raw = Descriptor();
  EXPECT_EQ(pair.one.receive(&message, {}), Outcome::done);
  EXPECT_EQ(pair.one.receive(&message, {}), Outcome::closed);
  EXPECT_EQ(pair.one.send("x"), Outcome::closed);
}

TEST(MessageSocket, sending_more_than_fits_waits_for_the_reader_and_stops_when_told) {
  Pair pair;
  int stop[2];
  ASSERT_EQ(::pipe(stop), 0);
  const Descriptor stop_read(stop[0]), stop_write(stop[1]);
  const std::string large(std::size_t{4} << 20, 'x');
  {
    MessageSocket reader(Descriptor(::dup(pair.raw.get())), large.size());
    std::thread sender([&] { EXPECT_EQ(pair.one.send(large), Outcome::done); });
    std::string message;
    EXPECT_EQ(reader.receive(&message, {}), Outcome::done);
    EXPECT_EQ(message, large);
    sender.join();
  }
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  const Descriptor unread(ends[1]);
  MessageSocket one{Descriptor(ends[0]), kLimit, stop_read.get()};
  EXPECT_TRUE(one.has_room());
  std::thread sender([&] { EXPECT_EQ(one.send(large), Outcome::stopped); });
  ASSERT_EQ(::write(stop_write.get(), "x", 1), 1);
  sender.join();
  EXPECT_FALSE(one.has_room());
  std::string message;
  EXPECT_EQ(one.receive(&message, {}), Outcome::stopped);
}

}  // namespace
}  // namespace aprime::os
