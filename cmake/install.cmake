# The installed package: library, headers, command, and what find_package and pkg-config need.
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/aprime)

install(TARGETS aprime EXPORT aprime FILE_SET HEADERS)
install(EXPORT aprime NAMESPACE aprime:: FILE aprime-targets.cmake DESTINATION ${package_dir})
if(TARGET aprime_cli)
  install(TARGETS aprime_cli)
endif()
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

get_target_property(library_type aprime TYPE)
configure_package_config_file(cmake/aprime-config.cmake.in aprime-config.cmake
  INSTALL_DESTINATION ${package_dir} NO_SET_AND_CHECK_MACRO)
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file(aprime-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/aprime-config.cmake ${PROJECT_BINARY_DIR}/aprime-config-version.cmake
  DESTINATION ${package_dir})

# Relative to the .pc file, so that an installed tree may be moved.
cmake_path(RELATIVE_PATH CMAKE_INSTALL_FULL_LIBDIR BASE_DIRECTORY ${CMAKE_INSTALL_PREFIX}
  OUTPUT_VARIABLE pc_libdir)
cmake_path(RELATIVE_PATH CMAKE_INSTALL_FULL_INCLUDEDIR BASE_DIRECTORY ${CMAKE_INSTALL_PREFIX}
  OUTPUT_VARIABLE pc_includedir)
cmake_path(SET pc_to_prefix NORMALIZE "${CMAKE_INSTALL_PREFIX}")
cmake_path(RELATIVE_PATH pc_to_prefix BASE_DIRECTORY ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig)
set(pc_requires_mount "")
if(APRIME_HAVE_MOUNT)
  set(pc_requires_mount " fuse3")
endif()
set(pc_cuda_libs "")
if(APRIME_CUDA)
  set(pc_cuda_libs " -L${CUDAToolkit_LIBRARY_DIR} -lcudart_static -ldl -lrt")
endif()
configure_file(cmake/aprime.pc.in aprime.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/aprime.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
