#pragma once

namespace aprime {

/// Version of the headers a program is compiled against, by the rules of semantic versioning. The build
/// system reads the project's version from these three lines; it is written down nowhere else.
inline constexpr int version_major = 0;
inline constexpr int version_minor = 1;
inline constexpr int version_patch = 0;

/// Version of the library a program is linked with, for instance "0.1.0". Differs from the constants above if
/// a shared library was exchanged. Thread-safe; the text lives as long as the program.
const char* library_version() noexcept;

}  // namespace aprime
