// What other processes are told by the process that serves a mount. The caller is this process as well: it
// goes through the socket all the same.

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "aprime/mount_call.hpp"
#include "aprime/mount_status.hpp"
#include "tests/mount/mounted.hpp"

namespace aprime {
namespace {

using test::Client;
using test::Mounted;

constexpr std::uint64_t kGranule = 16384;
constexpr ByteCount kMemory{1 << 20};

std::string error_of(const std::function<void()>& fails) {
  try {
    fails();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing failed";
}

MountMessage answer_to(MountConnection& connection, const MountMessage& message) {
  connection.send(message);
  for (;;)
    if (auto answer = connection.receive(std::chrono::seconds{60})) return *answer;
}

class MountCalls : public testing::TestWithParam<DeviceKind> {};

TEST_P(MountCalls, status_tells_where_the_granules_are) {
  Mounted mounted(GetParam());
  mounted.make("z", std::string(5 * kGranule + 1, 'h'));
  mounted.make("a", "unmapped");
  EXPECT_TRUE(mount_status(mounted.at("")).files.empty());
  {
    const Mapping mapping = mounted.map("z");
    // Of the last granule there is one byte.
    mounted.device_stores(mapping, {ByteOffset{kGranule}, ByteCount{kGranule}}, 1);
    mounted.device_stores(mapping, {ByteOffset{5 * kGranule}, ByteCount{1}}, 1);
    Client client;
    client.must("open " + mounted.at("z"));
    client.must("map");
    client.must("store 0 1 2");
    MountStatus status = mount_status(mounted.at("z"));
    EXPECT_EQ(status.mountpoint + "/", mounted.at(""));
    EXPECT_EQ(status.process, ::getpid());
    ASSERT_EQ(status.devices.size(), 1u);
    ASSERT_EQ(status.files.size(), 1u);  // the scratch file of the test is not on the mount
    const FileStatus& file = status.files.front();
    EXPECT_EQ(file.path, "z");
    EXPECT_EQ(file.size.value, 5 * kGranule + 1);
    EXPECT_EQ(file.granule.value, kGranule);
    EXPECT_EQ(file.granules.device.value, 2u);
    EXPECT_EQ(file.granules.mount.value, 1u);
    EXPECT_EQ(file.granules.host.value, 3u);
    EXPECT_EQ(file.dirty_bytes.value, kGranule + 1);
    EXPECT_GT(status.stats.faults.device_write + status.stats.granules_filled, 0u);

    client.must("fsync");
    client.must("rename " + mounted.at("z") + " " + mounted.at("b"));
    status = mount_status(mounted.at("b"));
    ASSERT_EQ(status.files.size(), 1u);
    EXPECT_EQ(status.files.front().path, "b");
    EXPECT_EQ(status.files.front().granules.shared.value, 2u);
    EXPECT_EQ(status.files.front().dirty_bytes.value, 0u);
    client.must("close");
  }
  EXPECT_TRUE(mounted.mount().status().files.empty());
}

INSTANTIATE_TEST_SUITE_P(Devices, MountCalls,
                         testing::Values(DeviceKind::emulated, DeviceKind::emulated_strict),
                         [](const auto& kind) {
                           return kind.param == DeviceKind::emulated ? "emulated" : "emulated_strict";
                         });

TEST(MountCall, program_without_calls_of_its_own_says_so) {
  const Mounted mounted(DeviceKind::emulated);
  MountConnection connection(mounted.at(""));
  EXPECT_THAT(error_of([&] { answer_to(connection, {"dance"}); }),
              testing::AllOf(testing::HasSubstr("dance"), testing::HasSubstr("status only")));
}

TEST(MountCall, program_answers_its_own_calls_and_maps_files_of_the_mount_only) {
  const auto serve = [](MountCall& call) {
    if (call.request().type == "refuse")
      throw Error(Errc::no_space, "none \xff left", "\xff", ENOSPC, ByteOffset{7});
    call.send({"first", call.request().body});
    while (const auto message = call.receive()) {
      const Mapping mapping = call.map(bytes_of_json_text(message->type), Access::read);
      std::string text(mapping.size(), '\0');
      mapping.read(ByteOffset{0}, std::as_writable_bytes(std::span(text)));
      call.send({"content", R"({"text": ")" + text + R"("})"});
    }
  };
  Mounted mounted(DeviceKind::emulated, HostAccess::adaptive, kMemory, {.serve = serve});
  mounted.make("file", "text");
  std::filesystem::create_directory(mounted.plain("directory"));
  std::filesystem::create_symlink(mounted.plain("../scratch"), mounted.plain("symlink"));
  MountConnection connection(mounted.at("file"));
  EXPECT_EQ(answer_to(connection, {"greet", R"({"a":1})"}).body, R"({"a":1})");
  EXPECT_EQ(answer_to(connection, {"file"}).body, R"({"text":"text"})");
  std::filesystem::create_directory_symlink("directory", mounted.plain("aside"));
  for (const auto& [path, why] : {std::pair{"missing", "no such file"},
                                  {"directory", "is a directory"},
                                  {"symlink", "it is a symbolic link, which"},
                                  {"aside/file", "leads through a symbolic link, which"},
                                  {"../scratch", "leads out of the mount"},
                                  {"directory/../../scratch", "leads out of the mount"},
                                  {"/etc/passwd", "leads out of the mount"}}) {
    MountConnection another(mounted.at("file"));
    answer_to(another, {"greet"});
    EXPECT_THAT(error_of([&] { answer_to(another, {path}); }),
                testing::AllOf(testing::HasSubstr(mounted.at(path)), testing::HasSubstr(why)));
  }
  MountConnection refused(mounted.at("file"));
  try {
    answer_to(refused, {"refuse"});
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Errc::no_space);
    EXPECT_STREQ(error.what(), "none \xff left");
    EXPECT_EQ(error.path(), "\xff");
    EXPECT_EQ(error.system_error(), ENOSPC);
    EXPECT_EQ(error.offset(), ByteOffset{7});
  }
}

TEST(MountCall, what_is_thrown_that_is_no_exception_is_an_answer_too) {
  const auto serve = [](MountCall&) { throw 7; };
  const Mounted mounted(DeviceKind::emulated, HostAccess::adaptive, kMemory, {.serve = serve});
  for (int time = 0; time < 2; ++time) {
    MountConnection connection(mounted.at(""));
    EXPECT_THAT(error_of([&] { answer_to(connection, {"dance"}); }),
                testing::AllOf(testing::HasSubstr("'dance'"), testing::HasSubstr("no std::exception")));
  }
}

TEST(MountCall, what_is_no_message_is_refused_to_who_sends_it) {
  const std::pair<MountMessage, const char*> kinds[] = {{{"kind", "not json"}, "body of the message 'kind'"},
                                                        {{"kind", "{\"a\": \"\xff\"}"}, "body"},
                                                        {{"kind", "[1]"}, "body"},
                                                        {{"\xff\xfe"}, "type"},
                                                        {{""}, "type"}};
  const auto serve = [&](MountCall& call) {
    call.send({"first"});
    while (const auto message = call.receive()) call.send(kinds[std::stoul(message->type)].first);
  };
  const Mounted mounted(DeviceKind::emulated, HostAccess::adaptive, kMemory, {.serve = serve});
  MountConnection connection(mounted.at(""));
  answer_to(connection, {"greet"});
  for (std::size_t n = 0; n < std::size(kinds); ++n) {
    const auto& [message, part] = kinds[n];
    MountConnection served(mounted.at(""));
    answer_to(served, {"greet"});
    for (const auto& send : {std::function<void()>([&] { connection.send(message); }),
                             std::function<void()>([&] { answer_to(served, {std::to_string(n)}); })}) {
      try {
        send();
        ADD_FAILURE() << n;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), Errc::invalid_argument) << error.what();
        EXPECT_THAT(error.what(), testing::HasSubstr(part));
      }
    }
  }
  EXPECT_THAT(error_of([&] { answer_to(connection, {"0"}); }), testing::HasSubstr("body"))
      << "nothing was sent before";
}

TEST(MountCall, end_of_the_mount_ends_calls_in_work) {
  std::atomic<bool> was_over = false;
  const auto serve = [&](MountCall& call) {
    call.send({"first"});
    EXPECT_FALSE(call.receive().has_value());
    was_over = call.is_over();
  };
  Mounted mounted(DeviceKind::emulated, HostAccess::adaptive, kMemory, {.serve = serve});
  MountConnection connection(mounted.at(""));
  answer_to(connection, {"wait"});
  mounted.mount().unmount();
  EXPECT_TRUE(was_over);
  EXPECT_THAT(error_of([&] { connection.receive(std::chrono::seconds{60}); }),
              testing::HasSubstr("unmounted"));
  EXPECT_THAT(error_of([&] { mount_status(mounted.at("")); }), testing::HasSubstr("no mount of aprime"));
}

TEST(MountCall, unmount_returns_when_all_is_home_though_the_program_goes_on) {
  Mounted mounted(DeviceKind::emulated);
  mounted.make("file", std::string(kGranule, 'h'));
  const Mapping mapping = mounted.map("file");
  mounted.device_stores(mapping, {ByteOffset{0}, ByteCount{kGranule}}, 'd');
  ASSERT_EQ(mounted.content("file"), std::string(kGranule, 'h'));
  unmount(mounted.at(""));
  EXPECT_EQ(mounted.content("file"), std::string(kGranule, 'd'));
  mounted.mount().wait();
  mounted.mount().unmount();
}

TEST(MountCall, end_of_the_caller_is_seen) {
  std::atomic<bool> was_over = false;
  const auto serve = [&](MountCall& call) {
    EXPECT_FALSE(call.is_over());
    call.send({"first"});
    while (!call.is_over()) std::this_thread::sleep_for(std::chrono::milliseconds{1});
    EXPECT_FALSE(call.send({"second"}));
    was_over = true;
    was_over.notify_all();
  };
  const Mounted mounted(DeviceKind::emulated, HostAccess::adaptive, kMemory, {.serve = serve});
  {
    MountConnection connection(mounted.at(""));
    answer_to(connection, {"wait"});
  }
  was_over.wait(false);
}

TEST(MountCall, path_on_a_mount_is_found_whatever_leads_there) {
  const Mounted mounted(DeviceKind::emulated);
  mounted.make("file", "text");
  const std::string symlink = mounted.plain("../symlink");
  std::filesystem::create_symlink(mounted.at("file"), symlink);
  for (const std::string& path : {mounted.at("file"), mounted.at("./file"), symlink}) {
    const auto found = find_on_mount(path);
    ASSERT_TRUE(found.has_value()) << path;
    EXPECT_EQ(found->mountpoint + "/", mounted.at(""));
    EXPECT_EQ(found->path, "file");
  }
  EXPECT_EQ(find_on_mount(mounted.at("missing/file"))->path, "missing/file");
  EXPECT_EQ(find_on_mount(mounted.at(""))->path, "");
  EXPECT_FALSE(find_on_mount(mounted.plain("file")).has_value());
  EXPECT_FALSE(find_on_mount("/proc/self/stat").has_value());
}

}  // namespace
}  // namespace aprime
