#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <functional>
#include <limits>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include "aprime/error.hpp"
#include "aprime/version.hpp"
#include "host/cli/demo_command.hpp"
#include "host/cli/device_options.hpp"
#include "host/cli/exit_code.hpp"
#include "host/cli/info_command.hpp"
#include "host/cli/mount_command.hpp"
#include "host/cli/report.hpp"
#include "host/cli/run_command.hpp"
#include "host/cli/status_command.hpp"
#include "kernels/workload.hpp"

namespace aprime::cli {
namespace {

/// What the command line asks for; empty if it asks for nothing.
using Action = std::function<int()>;

constexpr const char* kExitHelp =
    "Exit status: 0 done; 1 failed, with one line on stderr; 2 wrong usage; 3 --verify or --concurrent-host "
    "found a\n"
    "disagreement; 128 and the signal's number, as 130, interrupted between two launches (what was done is "
    "in\n"
    "the file and on disk).";

constexpr const char* kRunHelp =
    "Files may be larger than the device memory. Workloads that change their file end with a sync.\n"
    "On files of an `aprime mount` it is that process which runs, with its device; it does not sync.\n"
    "The JSON key 'file' is the file that is changed or, if none is, the first; 'verified' is null without "
    "--verify,\n"
    "'disagreement' unless that found one, 'host_traffic' without --concurrent-host; numbers that JSON has "
    "not are the\n"
    "texts \"inf\", \"-inf\" and \"nan\"; the counters include the few granules that carry arguments and "
    "results.\n";

/// Not CLI11's own conversion, which makes a huge number of "-1". Tells what about `given` is no such number.
template <class Count>
std::errc parse_count(const std::string& given, Count& value) {
  const char* end = given.data() + given.size();
  const auto [rest, error] = std::from_chars(given.data(), end, value);
  return rest == end ? error : std::errc::invalid_argument;
}

void add_count(CLI::App& command, const kernels::Argument& argument, std::uint64_t& value) {
  const auto parse = [&argument, &value](const std::string& given) {
    const std::errc error = parse_count(given, value);
    if (error == std::errc::result_out_of_range)
      throw CLI::ValidationError(argument.name, fmt::format("'{}' is too large; {} is the most", given,
                                                            std::numeric_limits<std::uint64_t>::max()));
    if (error != std::errc{} || value < argument.smallest) {
      throw CLI::ValidationError(
          argument.name, fmt::format("'{}' is not a whole number of at least {}", given, argument.smallest));
    }
  };
  command.add_option_function<std::string>(argument.name, parse, argument.help)
      ->required(argument.is_required)
      ->type_name("COUNT");
}

/// Nor of this one, which makes a large number infinite and a small one zero.
void add_number(CLI::App& command, const kernels::Argument& argument, float& value) {
  const auto parse = [&argument, &value](const std::string& given) {
    const bool begins_well = !given.empty() && std::isspace(static_cast<unsigned char>(given.front())) == 0;
    char* rest = nullptr;
    errno = 0;
    value = std::strtof(given.c_str(), &rest);
    if (!begins_well || rest != given.c_str() + given.size())
      throw CLI::ValidationError(argument.name, fmt::format("'{}' is not a number", given));
    if (errno == ERANGE && (value == 0 || std::isinf(value)))
      throw CLI::ValidationError(
          argument.name,
          fmt::format("'{}' is out of the range of float32 numbers, which is {:.9g} to {:.9g}", given,
                      std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::max()));
  };
  command.add_option_function<std::string>(argument.name, parse, argument.help)
      ->required(argument.is_required)
      ->type_name("NUMBER");
}

void add_workload_arguments(CLI::App& command, const kernels::Workload& workload,
                            kernels::Arguments& arguments) {
  // Options keep pointers to their targets, so the list of files must not grow later.
  std::size_t files = 0;
  for (const auto& argument : workload.arguments)
    files += std::holds_alternative<Access>(argument.value) ? 1 : 0;
  arguments.files.resize(files);

  std::size_t next_file = 0;
  for (const kernels::Argument& argument : workload.arguments) {
    if (std::holds_alternative<Access>(argument.value)) {
      command.add_option(argument.name, arguments.files[next_file++], argument.help)->required();
    } else if (const auto* text = std::get_if<std::string kernels::Arguments::*>(&argument.value)) {
      command.add_option(argument.name, arguments.*(*text), argument.help)->required(argument.is_required);
    } else if (const auto* number = std::get_if<float kernels::Arguments::*>(&argument.value)) {
      add_number(command, argument, arguments.*(*number));
    } else if (const auto* count = std::get_if<std::uint64_t kernels::Arguments::*>(&argument.value)) {
      add_count(command, argument, arguments.*(*count));
    }
  }
}

void add_run(CLI::App& app, RunOptions& options, Action& action) {
  CLI::App* run =
      app.add_subcommand("run", "run a kernel over a file; `aprime run WORKLOAD --help` tells more");
  // Not required here: then a wrong name would be answered by "a subcommand is required".
  run->require_subcommand(0, 1);
  run->callback([run] {
    if (run->get_subcommands().empty()) throw CLI::ValidationError("run", "name a WORKLOAD");
  });
  run->footer(kExitHelp);
  for (const kernels::Workload* workload : kernels::all_workloads()) {
    CLI::App* command = run->add_subcommand(workload->name, workload->help);
    auto arguments = std::make_shared<kernels::Arguments>();
    add_workload_arguments(*command, *workload, *arguments);
    add_device_options(*command, options.device);
    command->add_flag(
        "--concurrent-host", options.concurrent_host,
        "meanwhile, CPU threads read the files and store the bytes they find there again, under host "
        "leases: no byte changes by that, but a stale or lost copy on either side would show; the files "
        "must be writable, and nobody else may change them");
    command->add_flag("--verify", options.verify, "compare with a computation by plain sequential C++");
    command->add_flag("--json", options.device.json, "print one JSON object on stdout");
    command->footer(std::string(kRunHelp) + kExitHelp);
    command->callback([&options, &action, arguments, workload, command] {
      check_device_options(options.device);
      note_given_options(*command, options.device);
      options.arguments = *arguments;
      action = [&options, workload] { return run_command(*workload, options); };
    });
  }
}

void add_info(CLI::App& app, bool& json, Action& action) {
  CLI::App* info =
      app.add_subcommand("info", "what this machine has for aprime, and what missing parts cost");
  info->add_flag("--json", json, "print one JSON object on stdout");
  info->callback([&json, &action] { action = [&json] { return info_command(json); }; });
}

void add_demo(CLI::App& app, std::string& path, DeviceChoice& choice, Action& action) {
  CLI::App* demo = app.add_subcommand("demo",
                                      "show on FILE that kernels, CPU pointers and read(2) use the same "
                                      "bytes; turns its letters to upper case");
  demo->add_option("FILE", path, "file to change in place")->required();
  add_device_options(*demo, choice);
  demo->footer(kExitHelp);
  demo->callback([&path, &choice, &action] {
    check_device_options(choice);
    action = [&path, &choice] { return demo_command(path, choice); };
  });
}

void add_mount(CLI::App& app, MountRequest& request, Action& action) {
  CLI::App* mount = app.add_subcommand("mount", "show the tree SOURCE on MOUNTPOINT");
  mount->add_option("SOURCE", request.source, "directory whose tree is shown")->required();
  mount->add_option("MOUNTPOINT", request.mountpoint, "directory to show it on, outside SOURCE")->required();
  mount->add_flag("--foreground", request.foreground, "serve in this process; Ctrl-C unmounts");
  mount->add_flag("--allow-other", request.options.allow_other, "let other users in, with their own rights");
  mount
      ->add_option_function<std::string>(
          "--dirty-age",
          [&request](const std::string& given) {
            std::uint32_t seconds = 0;
            if (parse_count(given, seconds) != std::errc{})
              throw CLI::ValidationError("--dirty-age",
                                         fmt::format("'{}' is not a whole number of at most {}", given,
                                                     std::numeric_limits<std::uint32_t>::max()));
            request.dirty_age = std::chrono::seconds{seconds};
          },
          "seconds after which bytes that only a device has are copied back; 0: not before they are needed")
      ->type_name("SECONDS")
      ->default_str("5");
  add_device_options(*mount, request.device);
  mount->callback([&request, &action] {
    check_device_options(request.device);
    action = [&request] { return mount_command(request); };
  });
}

void add_unmount(CLI::App& app, std::string& mountpoint, Unmount& how, Action& action) {
  CLI::App* unmount = app.add_subcommand("unmount", "end a mount, also one whose process is gone");
  unmount->add_option("MOUNTPOINT", mountpoint, "where it is mounted")->required();
  CLI::Option* lazy = unmount->add_flag_callback(
      "--lazy", [&] { how = Unmount::now; }, "at once, even while programs use it");
  unmount
      ->add_flag_callback(
          "--force", [&] { how = Unmount::force; },
          "at once, with an error for programs that wait for it: for a process that answers no more")
      ->excludes(lazy);
  unmount->callback([&] { action = [&] { return unmount_command(mountpoint, how); }; });
}

void add_status(CLI::App& app, std::string& path, bool& json, Action& action) {
  CLI::App* status = app.add_subcommand("status", "what a mount is doing: its files and their granules");
  status->add_option("MOUNTPOINT", path, "where it is mounted, or a file on it")->required();
  status->add_flag("--json", json, "print one JSON object on stdout");
  status->footer(
      "The states of granules: host, only the host has it; home, nobody has a right to it; shared, the host\n"
      "and devices may read it; device, a device may store to it; unsaved (device_dirty), a device has it "
      "and\n"
      "nobody may store to it; mount, a program may store to it by mmap.");
  status->callback([&] { action = [&] { return status_command(path, json); }; });
}

/// A standard stream that is closed would be the first file that is opened, and what is printed would go into
/// it. What takes its place gives no byte, and refuses to be written as a closed one does. False if there is
/// nothing to take its place.
bool occupy_standard_descriptors() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    // The lowest free descriptor is this one.
    if (::fcntl(fd, F_GETFD) < 0 && ::open("/dev/null", O_RDONLY) != fd) return false;
  }
  return true;
}

int fail(const std::exception& error, int status) {
  tell_line(error.what());
  return status;
}

std::string names_of_commands(const CLI::App& app) {
  std::string names;
  for (const CLI::App* command : app.get_subcommands({}))
    names += (names.empty() ? "" : ", ") + command->get_name();
  return names;
}

/// The command that was named, as far as it is one.
std::string named_command(const CLI::App& app) {
  std::string name = app.get_name();
  for (const CLI::App* at = &app; !at->get_subcommands().empty();) {
    at = at->get_subcommands().front();
    name += " " + at->get_name();
  }
  return name;
}

/// Of what comes where a command or a workload has to be named and is none; empty if that is not so.
std::string unknown_name(const CLI::App& app) {
  const std::vector<std::string> left = app.remaining_for_passthrough(true);
  const std::string command = named_command(app);
  if (!left.empty() && command == "aprime") return fmt::format("there is no command '{}'", left.back());
  if (!left.empty() && command == "aprime run") return fmt::format("there is no workload '{}'", left.back());
  return {};
}

/// An argument that was taken for an unknown option may be why another one is missing.
std::string explain(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::RequiredError) ||
      error.get_exit_code() == static_cast<int>(CLI::ExitCodes::ExtrasError)) {
    for (const std::string& left : app.remaining(true)) {
      if (left.size() > 1 && left.front() == '-')
        return fmt::format("there is no option {}; before an argument that begins with '-', put `--`", left);
    }
    if (std::string unknown = unknown_name(app); !unknown.empty()) return unknown;
  }
  return error.what();
}

int run(int argc, char** argv) {
  CLI::App app("mmap for GPUs, coherent", "aprime");
  app.set_version_flag("--version", fmt::format("aprime {}", library_version()));
  // Not required here either, see add_run.
  app.require_subcommand(0, 1);
  app.callback([&app] {
    if (app.get_subcommands().empty())
      throw CLI::ValidationError("name a command: " + names_of_commands(app));
  });
  Action action;
  RunOptions run_options;
  bool info_json = false;
  std::string demo_path;
  DeviceChoice demo_choice;
  add_run(app, run_options, action);
  add_info(app, info_json, action);
  add_demo(app, demo_path, demo_choice, action);
  MountRequest mount_request;
  add_mount(app, mount_request, action);
  std::string unmount_point;
  Unmount unmount_how = Unmount::when_idle;
  add_unmount(app, unmount_point, unmount_how, action);
  std::string status_path;
  bool status_json = false;
  add_status(app, status_path, status_json, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const bool is_help = error.get_exit_code() == 0;  // or --version
    const std::string wrong = is_help ? unknown_name(app) : explain(app, error);
    if (wrong.empty()) {
      std::ostringstream text;
      app.exit(error, text, text);
      print(text.str());
      return ExitCode::done;
    }
    tell_line(fmt::format("{}; see `{} --help`", wrong, named_command(app)));
    return ExitCode::usage;
  }
  return action();
}

}  // namespace
}  // namespace aprime::cli

int main(int argc, char** argv) {
  using namespace aprime::cli;
  if (!occupy_standard_descriptors()) {
    tell_line("a standard stream is closed, and /dev/null, to take its place, cannot be opened");
    return ExitCode::failed;
  }
  // A file size limit is an error of the write that meets it, as a full disk is.
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    return run(argc, argv);
  } catch (const Disagreement& error) {
    return fail(error, ExitCode::mismatch);
  } catch (const aprime::kernels::UsageError& error) {
    return fail(error, ExitCode::usage);
  } catch (const aprime::Error& error) {
    // What a system call refuses is no fault of the command line's.
    const bool is_usage = error.code() == aprime::Errc::invalid_argument && error.system_error() == 0;
    return fail(error, is_usage ? ExitCode::usage : ExitCode::failed);
  } catch (const std::exception& error) {
    return fail(error, ExitCode::failed);
  }
}
