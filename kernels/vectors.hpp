#pragma once

#include <cstdint>

#include "aprime/mapping.hpp"
#include "kernels/session.hpp"

namespace aprime::kernels {

// Operations on vectors of 4-byte elements that fill whole mappings of one size, which may be larger than the
// device memory. An interrupt is noticed between two launches. \throws Error, InputError, Interrupted

void fill(Session& session, const Mapping& vector, std::uint32_t value);

void copy(Session& session, const Mapping& to, const Mapping& from);

/// y = x_factor * x + y_factor * y
void combine(Session& session, float y_factor, const Mapping& y, float x_factor, const Mapping& x);

/// In double precision; the same on every device and in every run with the same device memory.
double dot(Session& session, const Mapping& x, const Mapping& y);

}  // namespace aprime::kernels
