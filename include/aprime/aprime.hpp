#pragma once

#if __cplusplus < 202002L
#error "aprime needs C++20: compile with -std=c++20 or a later standard"
#endif

#include "aprime/access.hpp"
#include "aprime/cuda.hpp"
#include "aprime/device_span.hpp"
#include "aprime/error.hpp"
#include "aprime/grid.hpp"
#include "aprime/kernel.hpp"
#include "aprime/launch.hpp"
#include "aprime/lease.hpp"
#include "aprime/mapping.hpp"
#include "aprime/mount.hpp"
#include "aprime/mount_call.hpp"
#include "aprime/mount_status.hpp"
#include "aprime/runtime.hpp"
#include "aprime/stats.hpp"
#include "aprime/units.hpp"
#include "aprime/version.hpp"
