#!/usr/bin/env bash
# Builds the core under gcc's sanitizers and runs tests on it:
#
#     PYTHON=python3 tests/sanitize.sh [whole | short]
#
# AddressSanitizer and UndefinedBehaviorSanitizer run the tests of the core, ThreadSanitizer those with
# threads (tests/races.cpp, which has no interpreter, is run by the tests themselves). The short form, about a minute,
# builds and runs less. Python itself is not built for them: their library is loaded before it, and ThreadSanitizer sees
# the interpreter's lock through it. A script that ends while a daemon thread is inside of a call leaks that thread.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
python=${PYTHON:-python3}
form=${1:-whole}

build() {  # NAME SANITIZERS
  # An environment of its own: the import hook of an editable install would go before any path.
  rm -rf "build/sanitized-$1"
  "$python" -m venv "build/sanitized-$1"
  local pip=("build/sanitized-$1/bin/python" -m pip install --quiet --constraint constraints.txt)
  "${pip[@]}" numpy pytest hypothesis
  "${pip[@]}" --no-deps --config-settings=build-dir="build/sanitized-$1-objects" \
    --config-settings=cmake.define.PYMULTIGRID_SANITIZE="$2" \
    --config-settings=cmake.define.PYMULTIGRID_DEVELOPMENT=$([ "$form" = whole ] && echo ON || echo OFF) \
    --config-settings=cmake.define.PYMULTIGRID_CUDA=OFF \
    --config-settings=install.strip=false .
}

check() {  # NAME LIBRARY TESTS...
  local name=$1 library=$2
  shift 2
  (
    cd build
    # libstdc++ comes first, too: the sanitizers look for its functions when they start.
    export LD_PRELOAD="$(gcc -print-file-name="$library.so") $(gcc -print-file-name=libstdc++.so)"
    export PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:handle_segv=1 \
      UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS="report_thread_leaks=0 exitcode=66"
    local python=sanitized-$name/bin/python
    $python -c "import pymultigrid._core as core; assert 'sanitized-$name' in core.__file__, core.__file__"
    $python -m pytest -c ../pyproject.toml --rootdir .. -q -p no:cacheprovider "$@"
  )
}

command -v gcc >/dev/null || { echo "sanitize: not run, gcc is missing"; exit 0; }
tests=$root/tests
build address address,undefined
if [ "$form" = short ]; then
  check address libasan "$tests/test_core_checks.py" "$tests/test_resample_input.py" -k "not daemon and not million"
  exit
fi
check address libasan "$tests"/test_{core_checks,golden,plans,grid,clock,sample,report}.py \
  "$tests"/test_schedule_{steps,plans,values,refusals,costs}.py \
  "$tests"/test_resample.py "$tests"/test_resample_{input,memory,cuda}.py -k "not bfloat16"
build thread thread
check thread libtsan "$tests/test_resample_memory.py" "$tests/test_core_checks.py" -k "thread or ctrl or buffer or memory"
