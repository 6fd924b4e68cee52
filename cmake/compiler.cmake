# How this project compiles itself. All of it is scoped to our own directories: nothing here reaches a
# consumer, neither through the export nor through add_subdirectory.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
# The static library may end up inside somebody's shared one.
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)

if(NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(APRIME_CCACHE ccache)
  mark_as_advanced(APRIME_CCACHE)
  if(APRIME_CCACHE)
    set(CMAKE_CXX_COMPILER_LAUNCHER ${APRIME_CCACHE})
  endif()
endif()

# Per language, because other compilers do not know these options.
set(aprime_warnings -Wall -Wextra -Wpedantic -Wshadow -Wconversion)
if(APRIME_WERROR)
  list(APPEND aprime_warnings -Werror)
endif()
add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:${aprime_warnings}>")

if(APRIME_CUDA)
  if(APRIME_WERROR)
    add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>")
  endif()
  # Of -Wall's and -Wextra's, what the code that nvcc generates does not provoke.
  add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra>")
endif()

if(APRIME_SANITIZE)
  list(JOIN APRIME_SANITIZE "," sanitizers)
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${sanitizers};-fno-omit-frame-pointer>")
  add_link_options(-fsanitize=${sanitizers})
  if("undefined" IN_LIST APRIME_SANITIZE)
    # Without this the program prints the defect, goes on, and the test passes.
    add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize-recover=all>")
    # Looks at memory through a pipe, and takes a process without free descriptors, which the tests have, for
    # one without the object.
    add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize=vptr>")
  endif()
  if("thread" IN_LIST APRIME_SANITIZE)
    # The shadow memory of older TSan runtimes tolerates 28 random bits in mmap addresses; kernels now default
    # to 32, and then one start in a few dies with "unexpected memory mapping". Tests run without address
    # randomisation wherever that is allowed (containers may forbid it).
    execute_process(COMMAND setarch -R true RESULT_VARIABLE setarch_failed OUTPUT_QUIET ERROR_QUIET)
    if(NOT setarch_failed)
      set(CMAKE_CROSSCOMPILING_EMULATOR setarch -R)
    endif()
  endif()
endif()
