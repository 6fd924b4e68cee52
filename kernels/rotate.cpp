#include "kernels/rotate.hpp"

#include <algorithm>

#include "kernels/rotate_kernel.hpp"

namespace aprime::kernels {
namespace {

constexpr unsigned kThreads = 256;

void reverse(Session& session, const Mapping& mapping, ElementRange range) {
  const std::uint64_t whole = session.lease_bytes(1).value / 4;
  const std::uint64_t end = session.lease_bytes(2).value / 4;
  // `whole` is larger than two ends by a granule or more, so the two leases of a launch never meet in a
  // granule.
  while (range.size() > whole) {
    const ElementRange front{range.first, range.first + end};
    const ElementRange back{range.last - end, range.last};
    session.run("reverse_ends", Grid::cover(end, kThreads), ReverseEndsKernel{},
                read_write(mapping, front.bytes()), read_write(mapping, back.bytes()));
    session.progress().advance(ByteCount{0});
    range = {front.last, back.first};
  }
  if (range.size() < 2) return;
  session.run("reverse", Grid::cover(range.size() / 2, kThreads), ReverseKernel{},
              read_write(mapping, range.bytes()));
  session.progress().advance(ByteCount{0});
}

}  // namespace

void rotate(Session& session, const Mapping& mapping, std::uint64_t first, std::uint64_t middle,
            std::uint64_t last) {
  if (first == middle || middle == last) return;
  reverse(session, mapping, {first, middle});
  reverse(session, mapping, {middle, last});
  reverse(session, mapping, {first, last});
}

}  // namespace aprime::kernels
