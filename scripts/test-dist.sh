#!/usr/bin/env bash
# test-dist.sh BINARY: packs the binary as `make dist` does, moves the folder, and runs a model
# from there.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:?usage: test-dist.sh BINARY}

if [ -L .libtorch/lib ]; then
    echo "test-dist: skipped, PENSTOCK_LIBTORCH names a library that is not ours to pack"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
scripts/dist.sh "$binary" "$work/packed"
mv "$work/packed" "$work/moved"
mkdir -p "$work/model/1"
cp models/repository/digits/1/model.pt "$work/model/1/"
env -u LD_LIBRARY_PATH "$work/moved/bin/penstock" inspect "$work/model/1/model.pt" \
    --input 'pixels=FP32[-1,64]'
grep -q 'shape = \[-1, 10\]' "$work/model/model.toml"
echo "test-dist: the moved folder runs a model"
