#pragma once

namespace aprime::cli {

/// Tells what this machine has for aprime. Returns the exit status. \throws std::runtime_error
int info_command(bool json);

}  // namespace aprime::cli
