# The targets of a folder of src, and of its tests.

# vla_unity(<target>): see VLA_UNITY.
function(vla_unity target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${VLA_UNITY} UNITY_BUILD_BATCH_SIZE 12)
  # It takes a source that another one includes for a header.
  target_compile_options(${target} PRIVATE
    $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:-Wno-subobject-linkage>)
endfunction()

# vla_tests(<program> <folder> FILES test... [SOURCES ...] [LIBRARIES lib...] [LABELS label...]): the folder's
# tests in one program, since each would spend most of its time on headers; ctest runs it once a file
# (src/testing/main.cpp).
function(vla_tests program folder)
  cmake_parse_arguments(ARG "" "" "FILES;SOURCES;LIBRARIES;LABELS" ${ARGN})
  list(TRANSFORM ARG_FILES APPEND .cpp OUTPUT_VARIABLE sources)
  list(APPEND sources ${ARG_SOURCES})
  list(TRANSFORM sources PREPEND src/${folder}/)
  add_executable(${program} src/testing/main.cpp ${sources})
  target_link_libraries(${program} PRIVATE vla_${folder} ${ARG_LIBRARIES} ${vla_fmt} GTest::gtest)
  target_compile_definitions(${program} PRIVATE VLA_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_compile_options(${program} PRIVATE ${vla_test_options})
  target_precompile_headers(${program} REUSE_FROM vla_test_headers)
  vla_unity(${program})
  foreach(test IN LISTS ARG_FILES)
    get_filename_component(name ${test} NAME)
    add_test(NAME ${name} COMMAND ${program} --file=${name})
    set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}")
  endforeach()
endfunction()

# vla_folder(<folder> [LIGHT] [UNITY] SOURCES ... [CUDA ...] [CUDA_OF_SIZE ...] [CUDA_OF_EVERY_SIZE ...]
#            [NO_CUDA ...] [DEPENDS folder...] [LIBRARIES lib...] [CUDA_LIBRARIES lib...] [TESTS ...]
#            [TEST_SOURCES ...] [GPU_TESTS ...] [BENCHMARKS ...])
# One static library per folder of src, which links only the folders it depends on. LIGHT: see
# vla_light_options. UNITY: the folder takes part in VLA_UNITY; headers and the templates that its sources
# share take most of their time. CUDA or NO_CUDA sources are added depending on the build. CUDA_OF_SIZE are
# compiled once a head size, which they see as VLA_HEAD_SIZE, since their kernels take minutes;
# CUDA_OF_EVERY_SIZE for large heads as well. With VLA_CUDA_QUICK, where headers take most of the time, they
# are compiled once for all sizes. TESTS are the program <folder>_tests, which has
# TEST_SOURCES besides, GPU_TESTS <folder>_cuda_tests: those have the label gpu and are skipped without a GPU.
function(vla_folder folder)
  cmake_parse_arguments(ARG "LIGHT;UNITY" "" "SOURCES;CUDA;CUDA_OF_SIZE;CUDA_OF_EVERY_SIZE;NO_CUDA;DEPENDS;LIBRARIES;CUDA_LIBRARIES;TESTS;TEST_SOURCES;GPU_TESTS;BENCHMARKS"
                        ${ARGN})
  if(vla_cuda)
    list(APPEND ARG_SOURCES ${ARG_CUDA})
    list(APPEND ARG_LIBRARIES ${ARG_CUDA_LIBRARIES} CUDA::cudart_static)
  else()
    set(ARG_GPU_TESTS)
    list(APPEND ARG_SOURCES ${ARG_NO_CUDA})
  endif()
  list(TRANSFORM ARG_SOURCES PREPEND src/${folder}/)
  list(TRANSFORM ARG_CUDA_OF_SIZE PREPEND src/${folder}/)
  list(TRANSFORM ARG_CUDA_OF_EVERY_SIZE PREPEND src/${folder}/)
  list(TRANSFORM ARG_DEPENDS PREPEND vla_)
  if(vla_cuda AND VLA_CUDA_QUICK)
    list(APPEND ARG_SOURCES ${ARG_CUDA_OF_SIZE} ${ARG_CUDA_OF_EVERY_SIZE})
  elseif(vla_cuda AND ARG_CUDA_OF_SIZE)
    foreach(size IN LISTS vla_head_sizes vla_large_head_sizes)
      add_library(vla_${folder}_${size} OBJECT ${ARG_CUDA_OF_EVERY_SIZE})
      if(size IN_LIST vla_head_sizes)
        target_sources(vla_${folder}_${size} PRIVATE ${ARG_CUDA_OF_SIZE})
      endif()
      target_link_libraries(vla_${folder}_${size} PRIVATE vla_flags ${ARG_LIBRARIES})
      target_compile_definitions(vla_${folder}_${size} PRIVATE VLA_HEAD_SIZE=${size})
      list(APPEND ARG_SOURCES $<TARGET_OBJECTS:vla_${folder}_${size}>)
    endforeach()
  endif()
  add_library(vla_${folder} STATIC ${ARG_SOURCES})
  target_link_libraries(vla_${folder} PUBLIC vla_flags ${ARG_DEPENDS} PRIVATE ${ARG_LIBRARIES})
  if(ARG_UNITY)
    vla_unity(vla_${folder})
  endif()
  if(ARG_LIGHT)
    target_compile_options(vla_${folder} PRIVATE ${vla_light_options})
    target_precompile_headers(vla_${folder} REUSE_FROM vla_light_headers)
  else()
    target_precompile_headers(vla_${folder} REUSE_FROM vla_headers)
  endif()
  if(VLA_TESTS)
    vla_tests(${folder}_tests ${folder} FILES ${ARG_TESTS} SOURCES ${ARG_TEST_SOURCES}
              LIBRARIES ${ARG_LIBRARIES})
    if(ARG_GPU_TESTS)
      vla_tests(${folder}_cuda_tests ${folder} FILES ${ARG_GPU_TESTS} LIBRARIES ${ARG_LIBRARIES} LABELS gpu)
    endif()
  endif()
  if(VLA_BENCHMARKS AND benchmark_FOUND)
    foreach(bench IN LISTS ARG_BENCHMARKS)
      get_filename_component(name ${bench} NAME)
      add_executable(${name} EXCLUDE_FROM_ALL src/${folder}/${bench}.cpp)
      target_link_libraries(${name} PRIVATE vla_${folder} ${vla_fmt} benchmark::benchmark)
      add_dependencies(benchmarks ${name})
    endforeach()
  endif()
endfunction()

# vla_fuzz_target(<name> [SOURCES ...] [DEPENDS folder...]): src/fuzz/<name>.cpp, a fuzzer where clang
# builds with VLA_FUZZ; elsewhere a test that replays its corpus, src/fuzz/corpus/<name without _fuzz>.
# SOURCES are single files of folders that have more than the target needs; a test links the folders,
# which are compiled anyway.
function(vla_fuzz_target name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  if(NOT TARGET fuzzers)
    return()
  endif()
  if(NOT VLA_FUZZ)
    list(TRANSFORM ARG_SOURCES REPLACE "^src/([^/]+)/.*" "\\1")
    list(REMOVE_DUPLICATES ARG_SOURCES)
    list(APPEND ARG_DEPENDS ${ARG_SOURCES})
    set(ARG_SOURCES)
  endif()
  list(TRANSFORM ARG_DEPENDS PREPEND vla_)
  add_executable(${name} src/fuzz/${name}.cpp ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE vla_flags ${ARG_DEPENDS} ${vla_fmt}
                                        nlohmann_json::nlohmann_json)
  target_compile_options(${name} PRIVATE ${vla_light_options})
  target_precompile_headers(${name} REUSE_FROM vla_light_headers)
  add_dependencies(fuzzers ${name})
  if(VLA_FUZZ)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  else()
    if(NOT TARGET vla_fuzz_replay)
      add_library(vla_fuzz_replay OBJECT src/fuzz/replay_main.cpp)
      target_link_libraries(vla_fuzz_replay PRIVATE vla_flags ${vla_fmt} nlohmann_json::nlohmann_json)
      target_compile_options(vla_fuzz_replay PRIVATE ${vla_light_options})
      target_precompile_headers(vla_fuzz_replay REUSE_FROM vla_light_headers)
    endif()
    target_link_libraries(${name} PRIVATE vla_fuzz_replay)
    string(REPLACE _fuzz "" corpus ${name})
    add_test(NAME ${name} COMMAND ${name} ${PROJECT_SOURCE_DIR}/src/fuzz/corpus/${corpus})
  endif()
endfunction()
