# NVTX, by which a profiler sees what the engine does: headers only, part of the CUDA toolkit. Sets
# APRIME_WITH_NVTX, and APRIME_NVTX_SOURCE_OPTIONS for the source files that include them: per file, because
# the same directory may hold another Thrust than the one in use.

aprime_auto_option(APRIME_ENABLE_NVTX "Ranges and counters for profilers" "where the NVTX headers are found")

set(APRIME_WITH_NVTX OFF)
if(APRIME_ENABLE_NVTX STREQUAL "OFF")
  message(STATUS "NVTX: switched off; no profiler ranges, and their test is not built")
  return()
endif()

find_path(APRIME_NVTX_INCLUDE_DIR nvtx3/nvToolsExt.h
  HINTS ENV CUDA_PATH ENV CUDA_HOME
  PATHS /usr/local/cuda /opt/cuda
  PATH_SUFFIXES include
  DOC "The directory that has nvtx3/nvToolsExt.h")
if(NOT APRIME_NVTX_INCLUDE_DIR)
  string(CONCAT missing "nvtx3/nvToolsExt.h is not found; it comes with the CUDA toolkit and from "
    "github.com/NVIDIA/NVTX; set APRIME_NVTX_INCLUDE_DIR if it is elsewhere")
  if(APRIME_ENABLE_NVTX STREQUAL "ON")
    message(FATAL_ERROR "APRIME_ENABLE_NVTX is ON: ${missing}")
  endif()
  message(STATUS "NVTX: no profiler ranges, and their test is not built: ${missing}")
  return()
endif()

set(APRIME_WITH_NVTX ON)
set(APRIME_NVTX_SOURCE_OPTIONS -isystem ${APRIME_NVTX_INCLUDE_DIR} -DNVTX_AS_SYSTEM_HEADER)

# Newer headers than those of CUDA 12.
include(CheckCXXSourceCompiles)
block()
  set(CMAKE_REQUIRED_INCLUDES ${APRIME_NVTX_INCLUDE_DIR})
  set(CMAKE_REQUIRED_DEFINITIONS -DNVTX_AS_SYSTEM_HEADER)
  check_cxx_source_compiles("
    #include <nvtx3/nvToolsExtCounters.h>
    #include <nvtx3/nvToolsExtSemanticsCounters.h>
    int main() {
      nvtxCounterAttr_t counter{};
      counter.schemaId = NVTX_PAYLOAD_ENTRY_TYPE_INT64;
      nvtxCounterSampleInt64(nullptr, nvtxCounterRegister(nullptr, &counter), NVTX_COUNTER_LIMIT_UNDEFINED);
    }" APRIME_NVTX_HAS_COUNTERS)
endblock()
if(APRIME_NVTX_HAS_COUNTERS)
  list(APPEND APRIME_NVTX_SOURCE_OPTIONS -DAPRIME_HAS_NVTX_COUNTERS)
  message(STATUS "NVTX: ranges and counters (${APRIME_NVTX_INCLUDE_DIR})")
else()
  message(STATUS "NVTX: ranges; these headers have no counters (${APRIME_NVTX_INCLUDE_DIR})")
endif()
