#!/usr/bin/env bash
# dist.sh BINARY FOLDER: a folder with bin/ and lib/ that runs wherever it is moved.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:?usage: dist.sh BINARY FOLDER}
folder=${2:?usage: dist.sh BINARY FOLDER}

if [ -L .libtorch/lib ]; then
    echo "dist.sh: packs the libtorch that scripts/libtorch.sh fetched: unset PENSTOCK_LIBTORCH and run make dist again" >&2
    exit 1
fi
stage=$(mktemp -d "$(pwd)/.dist.XXXXXX")
trap 'rm -rf "$stage"' EXIT
mkdir -p "$stage/bin" "$stage/lib" "$stage/licenses"
cp "$binary" "$stage/bin/penstock"
for library in libtorch.so libtorch_cpu.so libc10.so libgomp.so.1 libshm.so libcudart.so.13 libcupti.so.13; do
    if [ -e ".libtorch/lib/$library" ]; then
        cp -L ".libtorch/lib/$library" "$stage/lib/$library"
    fi
done
if [ -d .libtorch/licenses ]; then
    mkdir -p "$stage/licenses/libtorch"
    cp -rL .libtorch/licenses/. "$stage/licenses/libtorch/"
fi
cp LICENSE-MIT LICENSE-APACHE "$stage/licenses/"
chmod -R u+w,a+rX "$stage"

# It must find its libraries in its own folder and nowhere else.
if env -u LD_LIBRARY_PATH ldd "$stage/bin/penstock" | grep -E 'libtorch|libc10' | grep -vF -e "$stage/lib/" -e "$stage/bin/../lib/"; then
    echo "dist.sh: the binary looks for libtorch outside its own folder" >&2
    exit 1
fi
mkdir -p "$(dirname "$folder")"
rm -rf "$folder"
mv "$stage" "$folder"
trap - EXIT
chmod 755 "$folder"
echo "$folder ($(du -sh "$folder" | cut -f1))"
