#!/usr/bin/env bash
# Wheels for a GPU machine without network and without a compiler that has torch, transformers, accelerate, rich,
# pyarrow, numpy, pandas, xxhash, psutil, pyyaml, pytest and hypothesis (docs/gpu.md).
#   benchmarks/gpu/wheels.sh FOLDER [PYTHON_VERSION]     3.12 by default; on Linux, x86-64
# Run it in an environment that has torch, which DeepSpeed's set-up imports. On the GPU machine, in the repository's root:
#   python3 -m pip install --no-index --no-deps --target .site FOLDER/*.whl
#   PYTHONPATH=.site:$PWD python3 -m benchmarks.gpu
set -euo pipefail
folder=${1:?give a folder}
version=${2:-3.12}
deepspeed=$(sed -n 's/^deepspeed==//p' "$(dirname "$0")/../../.ci/constraints.txt")
mkdir -p "$folder"
platforms=(--platform any --platform manylinux1_x86_64 --platform manylinux2014_x86_64)
for glibc in 5 12 17 24 27 28; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
fetch() {
    python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version "$version" --implementation cp \
        "${platforms[@]}" --dest "$folder" "$@"
}
# a wheel of Python alone: operators would be compiled at first use, and none is used on a GPU with torch's AdamW
DS_BUILD_OPS=0 python3 -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$folder" "deepspeed==$deepspeed"
fetch hjson einops msgpack annotated-types typing-inspection pydantic py-cpuinfo  # DeepSpeed's
fetch jsonargparse typeshed-client importlib-resources docstring-parser  # of recipes and of the benchmarks' options
fetch datasets dill multiprocess  # of corpora, and of transformers.Trainer
case "$version" in 3.10 | 3.11 | 3.12 | 3.13) fetch backports.zstd ;; esac
core=$(unzip -p "$folder"/pydantic-[0-9]*.whl '*/METADATA' | sed -n 's/^Requires-Dist: pydantic-core==\([0-9.]*\).*/\1/p' | head -1)
fetch "pydantic-core==$core"
ls "$folder"
