# Whether the CUDA device and the CUDA versions of kernels are built: APRIME_CUDA says so afterwards. Nothing
# here links libcuda: the runtime library, which is linked statically, opens it when it is first used, so the
# program starts without a driver too.

aprime_auto_option(APRIME_ENABLE_CUDA "The CUDA device" "where nvcc is found")
set(aprime_cuda_version_min 12.0)
# One build for every GPU that is in use.
set(aprime_cuda_architectures 75 80 86 89 90 100 120)

# Where CMake itself would look, and then where the toolkit installs itself.
function(aprime_find_nvcc)
  if(CMAKE_CUDA_COMPILER)
    return()
  endif()
  find_program(APRIME_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
  mark_as_advanced(APRIME_NVCC)
  if(APRIME_NVCC)
    set(CMAKE_CUDA_COMPILER ${APRIME_NVCC} CACHE FILEPATH "CUDA compiler")
  endif()
endfunction()

# The version of the nvcc that was found, or empty. Asked of nvcc itself: CMake knows it only after a program
# was compiled for all architectures, which fails where nvcc is too old for one of them.
function(aprime_ask_nvcc_version result)
  set(${result} "" PARENT_SCOPE)
  if(CMAKE_CUDA_COMPILER)
    execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --version OUTPUT_VARIABLE answer ERROR_QUIET)
    if(answer MATCHES "V([0-9]+\\.[0-9]+\\.[0-9]+)")
      set(${result} ${CMAKE_MATCH_1} PARENT_SCOPE)
    endif()
  endif()
endfunction()

set(APRIME_CUDA OFF)
if(APRIME_ENABLE_CUDA)
  aprime_find_nvcc()
  aprime_ask_nvcc_version(nvcc_version)
  if(nvcc_version VERSION_GREATER_EQUAL aprime_cuda_version_min)
    set(APRIME_CUDA ON)
  else()
    set(found "there is none")
    if(nvcc_version)
      set(found "${CMAKE_CUDA_COMPILER} is of CUDA ${nvcc_version}")
    endif()
    string(CONCAT missing "an nvcc of CUDA ${aprime_cuda_version_min} or later is needed, and ${found}: "
      "install the CUDA toolkit, or set CMAKE_CUDA_COMPILER to its nvcc")
    if(APRIME_ENABLE_CUDA STREQUAL "ON")
      message(FATAL_ERROR "APRIME_ENABLE_CUDA is ON: ${missing}, or set APRIME_ENABLE_CUDA=OFF")
    endif()
    message(STATUS "no CUDA device: ${missing}")
  endif()
endif()

if(APRIME_CUDA)
  # Not `native`, which fails on a machine without a GPU.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES ${aprime_cuda_architectures})
  endif()
  if(nvcc_version VERSION_LESS 12.8)
    list(FILTER aprime_cuda_architectures EXCLUDE REGEX "^1[02]0")
    list(FILTER CMAKE_CUDA_ARCHITECTURES EXCLUDE REGEX "^1[02]0")
  endif()
  enable_language(CUDA)
  message(STATUS "CUDA ${CMAKE_CUDA_COMPILER_VERSION} for architectures ${CMAKE_CUDA_ARCHITECTURES}")
  # Separated by commas, to be told at run time. What CMake has names for are lists of its own.
  set(aprime_cuda_built_for ${CMAKE_CUDA_ARCHITECTURES})
  if(CMAKE_CUDA_ARCHITECTURES MATCHES "^(native|all|all-major)$")
    string(TOUPPER ${CMAKE_CUDA_ARCHITECTURES} name)
    string(REPLACE "-" "_" name ${name})
    set(aprime_cuda_built_for ${CMAKE_CUDA_ARCHITECTURES_${name}})
  endif()
  list(JOIN aprime_cuda_built_for "," aprime_cuda_built_for)
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_EXTENSIONS OFF)
  # CMake 3.25 does not know that nvcc has C++20, and drops the standard without a word.
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  endif()
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
  find_package(CUDAToolkit ${aprime_cuda_version_min} REQUIRED)
elseif(APRIME_BUILD_TESTS)
  # Its headers are enough to test the host side of the CUDA device over a stand-in for the runtime.
  find_package(CUDAToolkit ${aprime_cuda_version_min} QUIET)
endif()
