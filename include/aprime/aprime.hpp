#pragma once

#include "aprime/access.hpp"
#include "aprime/device_span.hpp"
#include "aprime/error.hpp"
#include "aprime/grid.hpp"
#include "aprime/kernel.hpp"
#include "aprime/launch.hpp"
#include "aprime/lease.hpp"
#include "aprime/mapping.hpp"
#include "aprime/runtime.hpp"
#include "aprime/stats.hpp"
#include "aprime/units.hpp"
#include "aprime/version.hpp"
