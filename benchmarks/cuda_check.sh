#!/usr/bin/env bash
# The whole check of the CUDA kernel on a machine with a GPU, in one call of about two minutes: build, tests,
# compute-sanitizer, benchmark; a table of what passed comes last.
#
#     PYTHON=python3 benchmarks/cuda_check.sh [folder for the logs]
#
# Needs no network, and these: a driver of 580 or newer, nvcc 13, a C++17 compiler; and for $PYTHON torch with CUDA,
# numpy, pytest, hypothesis, scikit-build-core, pybind11, cmake, ninja. compute-sanitizer, CuPy, JAX and CV-CUDA are used
# where they are installed.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
python=${PYTHON:-python3}
logs=$(mkdir -p "${1:-build/cuda-check}" && cd "${1:-build/cuda-check}" && pwd)
site=$root/build/cuda-check-site
table=() failed=0

# stage NAME SECONDS COMMAND...: runs it with a limit, keeps its log, and notes how it ended.
stage() {
  local name=$1 limit=$2 start=$SECONDS verdict=passed
  shift 2
  echo "== $name"
  timeout "$limit" "$@" >"$logs/$name.log" 2>&1
  local code=$?
  case $code in
    0) ;;
    124) verdict="FAILED: longer than $limit s" failed=1 ;;
    *) verdict="FAILED: exit $code" failed=1 ;;
  esac
  tail -n "${lines:-6}" "$logs/$name.log"
  table+=("$(printf '%-14s %4d s  %s' "$name" $((SECONDS - start)) "$verdict")")
}

# From another folder: in the root Python would find the sources instead of what was built.
tests=("$python" -m pytest -c "$root/pyproject.toml" --rootdir "$root" -p no:cacheprovider -q)
on_gpu=$root/tests/torch/test_cuda.py
export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 CUDAARCHS=${CUDAARCHS:-native}
mkdir -p build
rm -rf "$site"
"$python" -c "import torch, numpy, pytest, hypothesis, scikit_build_core, pybind11" || exit

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader || echo "no nvidia-smi"
stage build 120 "$python" -m pip install -v --no-build-isolation --no-deps --no-index --target "$site" \
  --config-settings=cmake.define.PYMULTIGRID_CUDA=ON --config-settings=cmake.define.PYMULTIGRID_DEVELOPMENT=ON \
  --config-settings=cmake.define.PYMULTIGRID_WERROR=ON \
  --config-settings=cmake.define.CMAKE_CUDA_FLAGS=-Xptxas=-v .
grep -E "Compiling entry|spill|Used .* registers" "$logs/build.log" | sed 's/.*resample_tilesI/  /' >"$logs/registers.log"
cd build || exit
stage available 20 "$python" -c "import pymultigrid as p; print(p.cuda_missing()); assert p.cuda_available()"
stage tests 100 "${tests[@]}" "$on_gpu" "$root/tests/test_resample_cuda.py" "$root/tests/torch/test_tensors.py"
grep "not run" "$logs/tests.log" | sort -u
if command -v compute-sanitizer >/dev/null; then
  # Each tensor an allocation of its own: within one that torch divides, an overrun would not be seen.
  export PYTORCH_NO_CUDA_MEMORY_CACHING=1
  only=() && compute-sanitizer --help | grep -q -- --kernel-name && only=(--kernel-name kernel_substring=resample_tiles)
  for tool in memcheck racecheck synccheck; do
    stage $tool 45 compute-sanitizer --tool $tool "${only[@]}" --error-exitcode 9 "${tests[@]}" "$on_gpu" \
      -k "address or ragged"
  done
  unset PYTORCH_NO_CUDA_MEMORY_CACHING
else
  table+=("compute-sanitizer: not run: it is not installed")
fi
lines=40 stage benchmark 100 "$python" "$root/benchmarks/resample_cuda.py" --json "$logs/benchmark.json"

echo "== registers and spills"
cat "$logs/registers.log"
echo "== summary"
printf '%s\n' "${table[@]}"
exit $failed
