#pragma once

#include <string>
#include <string_view>

#include "aprime/error.hpp"

namespace aprime::engine {

/// What is wrong with a call in a child made by fork().
inline constexpr const char* kInChildProcess =
    "this is a child of fork(): what it inherited of a runtime is the parent's; make a new Runtime";

/// In words: what was being done to which file, where, why it failed, and what to do about it.
std::string describe(const Status& status, const std::string& path, std::string_view doing);

/// Throws the Error for a failed status; does nothing for one that is ok.
void throw_if_failed(const Status& status, const std::string& path, std::string_view doing);

/// As throw_if_failed, for a sync: says that the bytes that could not be written are kept.
void throw_if_not_synced(const Status& status, const std::string& path);

/// Does what `set_up` does for a file; an error of a layer that knows no files is given the file's name.
template <class SetUp>
auto set_up_for(const std::string& path, SetUp set_up, const std::string& doing = "map") {
  try {
    return set_up();
  } catch (const Error& e) {
    if (!e.path().empty()) throw;
    throw Error(e.code(), "cannot " + doing + " '" + path + "': " + e.what(), path, e.system_error(),
                e.offset());
  }
}

}  // namespace aprime::engine
