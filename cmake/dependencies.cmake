# Every dependency, all of them distribution packages; scripts/setup installs them. Found here, in the top
# directory's scope, because imported targets are invisible to sibling directories.

# The library's own. cmake/aprime-config.cmake.in and cmake/aprime.pc.in repeat them for consumers.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(Boost REQUIRED CONFIG COMPONENTS context)

aprime_auto_option(APRIME_ENABLE_MOUNT "The mount" "where libfuse 3 is found")
set(APRIME_HAVE_MOUNT OFF)
if(APRIME_ENABLE_MOUNT)
  find_package(PkgConfig QUIET)
  if(PkgConfig_FOUND)
    pkg_check_modules(fuse3 QUIET fuse3>=3.14)
  endif()
  if(fuse3_FOUND)
    set(APRIME_HAVE_MOUNT ON)
  elseif(APRIME_ENABLE_MOUNT STREQUAL "ON")
    message(FATAL_ERROR "APRIME_ENABLE_MOUNT is ON: pkg-config and libfuse 3.14 (libfuse3-dev) are needed; "
                        "AUTO does without")
  endif()
endif()

if(APRIME_BUILD_CLI OR APRIME_BUILD_TESTS OR APRIME_BUILD_BENCH)
  find_package(TBB REQUIRED)
  # A CUDA toolkit on PATH brings its own Thrust, which find_package would prefer to the distribution's.
  find_package(Thrust REQUIRED CONFIG NO_SYSTEM_ENVIRONMENT_PATH)
  if(Thrust_VERSION VERSION_EQUAL 3.0.1)
    message(FATAL_ERROR "Thrust ${Thrust_VERSION} sorts negative integers wrongly on the CPU; "
                        "point Thrust_DIR, now ${Thrust_DIR}, at another version")
  endif()
  # Device algorithms run on the CPU as well: here, the emulated device is the device.
  block()
    set(CMAKE_WARN_DEPRECATED OFF)  # Thrust asks for policies of an older CMake
    thrust_create_target(aprime_thrust HOST TBB DEVICE TBB)
  endblock()
  if("undefined" IN_LIST APRIME_SANITIZE)
    # thrust::sort binds a reference to a null execution policy, which it never uses.
    target_compile_options(aprime_thrust INTERFACE -fno-sanitize=null)
  endif()
endif()

if(APRIME_BUILD_CLI OR APRIME_HAVE_MOUNT)
  find_package(nlohmann_json REQUIRED)  # headers only: consumers need none of it
endif()
if(APRIME_BUILD_CLI)
  find_package(CLI11 REQUIRED)
endif()
if(APRIME_BUILD_TESTS)
  find_package(GTest REQUIRED)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
endif()
if(APRIME_BUILD_BENCH)
  find_package(benchmark REQUIRED)
endif()
