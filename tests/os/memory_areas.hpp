#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

namespace aprime::test {

/// One line of /proc/self/maps, clipped to the range that was asked for.
struct MemoryArea {
  std::uintptr_t begin;
  std::uintptr_t end;
  int protection;
};

/// What the kernel says about a range of this process's memory.
inline std::vector<MemoryArea> memory_areas(const std::byte* begin, std::size_t size) {
  const auto first = reinterpret_cast<std::uintptr_t>(begin);
  const std::uintptr_t last = first + size;
  std::vector<MemoryArea> areas;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    std::uintptr_t from = 0;
    std::uintptr_t to = 0;
    char r = 0;
    char w = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx %c%c", &from, &to, &r, &w) != 4 || to <= first || from >= last)
      continue;
    areas.push_back({from < first ? first : from, to > last ? last : to,
                     (r == 'r' ? PROT_READ : 0) | (w == 'w' ? PROT_WRITE : 0)});
  }
  return areas;
}

}  // namespace aprime::test
