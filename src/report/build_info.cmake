# Writes a header with what only the build knows. Runs at every build; the header is touched only
# when its content changes, so nothing is recompiled needlessly.
#   cmake -DSOURCE_DIR=... -DOUTPUT=... -DVERSION=... -DBUILD_TYPE=... -DFLAGS=... -P build_info.cmake
set(git_hash "unknown")
set(git_dirty "unknown")
find_program(GIT git)
if(GIT)
  # safe.directory: the tree may belong to another user than the one who builds (containers).
  # No optional locks: a build must not disturb a git command that runs beside it.
  set(git ${GIT} --no-optional-locks -c safe.directory=* -C ${SOURCE_DIR})
  execute_process(COMMAND ${git} rev-parse --show-cdup OUTPUT_VARIABLE above
                  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  # A tarball unpacked inside somebody else's repository is not a checkout of this project.
  if(NOT failed AND "${above}" STREQUAL "")
    execute_process(COMMAND ${git} rev-parse HEAD OUTPUT_VARIABLE hash
                    OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
    execute_process(COMMAND ${git} status --porcelain --untracked-files=no OUTPUT_VARIABLE changes
                    ERROR_QUIET RESULT_VARIABLE status_failed)
    if(NOT failed AND NOT status_failed)
      set(git_hash "${hash}")
      if("${changes}" STREQUAL "")
        set(git_dirty "false")
      else()
        set(git_dirty "true")
      endif()
    endif()
  endif()
endif()

set(content "// Written by build_info.cmake.
#pragma once

namespace vla_bench::build_info {

inline constexpr const char* kVersion = R\"(${VERSION})\";
inline constexpr const char* kGitHash = R\"(${git_hash})\";
inline constexpr const char* kGitDirty = R\"(${git_dirty})\";
inline constexpr const char* kBuildType = R\"(${BUILD_TYPE})\";
inline constexpr const char* kFlags = R\"(${FLAGS})\";

}  // namespace vla_bench::build_info
")
set(old "")
if(EXISTS "${OUTPUT}")
  file(READ "${OUTPUT}" old)
endif()
if(NOT "${content}" STREQUAL "${old}")
  file(WRITE "${OUTPUT}" "${content}")
endif()
