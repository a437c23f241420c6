#!/usr/bin/env bash
# Sets up .libtorch/ at the root of this repository: the libtorch that cargo builds against.
#
#   scripts/libtorch.sh                            libtorch 2.11.0 for the CPU, from PyPI's wheels
#   PENSTOCK_LIBTORCH=/path scripts/libtorch.sh    a library that you have: a libtorch folder, or the
#                                                  `torch` folder of a Python's site-packages
#
# Calling it again costs nothing while .libtorch/ is what was asked for; asking for the other kind
# switches. Two callers at once are fine: the second waits, then finds the work done.
# Nothing is written outside .libtorch/ (and its staging folder beside it, .libtorch.stage.*, which
# goes away at the end); a library named by PENSTOCK_LIBTORCH is only read.
#
# Other settings: PENSTOCK_WHEELS=/folder keeps the downloaded wheels there and finds them there next
# time, also without a network; PYTHON, CC, CXX name other programs than python3, cc, c++.
#
# How the CPU library comes about. PyPI carries torch for Linux x86_64 only with CUDA inside, but
# little of that is needed to run on a CPU: the headers, libtorch_cpu.so and libc10.so. The former
# wants libcudart and libcupti (for its profiler; neither needs a driver), so both come out of their own
# wheels and are laid beside it. The wheel's libtorch.so would pull libtorch_cuda.so in, so an empty
# library of that name takes its place and points at libtorch_cpu.so.
set -euo pipefail

readonly VERSION=2.11.0
readonly RECIPE="penstock libtorch $VERSION cpu, recipe 1" # raise the number when the result changes
readonly WHEELS=( # requirement, file, SHA-256
  "torch==2.11.0
   torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl
   0f68f4ac6d95d12e896c3b7a912b5871619542ec54d3649cf48cc1edd4dd2756"
  "nvidia-cuda-runtime==13.0.96
   nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl
   7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548"
  "nvidia-cuda-cupti==13.0.85
   nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl
   4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8"
)
readonly NEEDED_MIB=2000

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
readonly ROOT TARGET="$ROOT/.libtorch"
readonly PYTHON=${PYTHON:-python3} CC=${CC:-cc} CXX=${CXX:-c++}
stage=

say() { printf 'libtorch: %s\n' "$*" >&2; }
die() {
  printf 'libtorch: error: %s\n' "$*" >&2
  exit 1
}
# Removes what was staged; an interrupted switch gives the former library back first.
cleanup() {
  [ -n "$stage" ] || return 0
  if [ -d "$stage/old" ] && [ ! -e "$TARGET" ]; then mv -- "$stage/old" "$TARGET"; fi
  rm -rf -- "$stage"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# True when .libtorch/ is complete and carries exactly the marker $1.
is_complete() {
  [ -f "$TARGET/.complete" ] && [ "$(cat -- "$TARGET/.complete")" = "$1" ] \
    && [ -e "$TARGET/lib/libtorch_cpu.so" ] && [ -e "$TARGET/include/torch/script.h" ]
}

# Waits until no other call is at work; the lock is this script's own file and ends with the process.
take_lock() {
  command -v flock >/dev/null || die "flock is missing: install util-linux"
  exec 9<"$ROOT/scripts/libtorch.sh"
  if ! flock -n 9; then
    say "another call is at work, waiting for it"
    flock 9 || die "cannot lock $ROOT/scripts/libtorch.sh"
  fi
}

# Makes the staging folder, on the same file system as .libtorch/ so that it can be moved into place.
make_stage() {
  [ ! -L "$TARGET" ] \
    || die "$TARGET is a symbolic link: remove it, and name its target in PENSTOCK_LIBTORCH instead"
  [ ! -e "$TARGET" ] || [ -f "$TARGET/.complete" ] \
    || die "$TARGET exists but was not made by this script: remove it by hand"
  rm -rf -- "$ROOT"/.libtorch.stage.* # left by a call that was killed; we hold the lock
  stage=$(mktemp -d "$ROOT/.libtorch.stage.XXXXXX") || die "cannot write to $ROOT"
  mkdir "$stage/new" "$stage/tmp"
}

# Puts what was staged in place of .libtorch/, with the marker $1.
publish() {
  printf '%s\n' "$1" >"$stage/new/.complete"
  [ ! -e "$TARGET" ] || mv -- "$TARGET" "$stage/old"
  mv -- "$stage/new" "$TARGET"
}

# === a library that the user has

# Prints the version of the library in folder $1, or nothing.
version_of() {
  if [ -f "$1/build-version" ]; then
    head -n 1 -- "$1/build-version"
  elif [ -f "$1/version.py" ]; then
    sed -n "s/^__version__ *= *['\"]\([^'\"]*\)['\"].*/\1/p" -- "$1/version.py" | head -n 1
  fi
}

use_own_library() {
  local named=$1 library version file marker
  library=$(cd -- "$named" 2>/dev/null && pwd -P) || die "PENSTOCK_LIBTORCH=$named: no such folder"
  case "$library/" in
    "$TARGET/"*) die "PENSTOCK_LIBTORCH=$named: is this repository's own .libtorch; unset the variable to use that" ;;
  esac
  version=$(version_of "$library")
  case $version in
    2.11.*) ;;
    '') die "PENSTOCK_LIBTORCH=$named: neither build-version nor version.py there says a version (libtorch 2.11 is needed)" ;;
    *) die "PENSTOCK_LIBTORCH=$named: is version $version, but libtorch 2.11 is needed" ;;
  esac
  for file in lib/libtorch_cpu.so lib/libtorch.so lib/libc10.so include/torch/script.h; do
    [ -f "$library/$file" ] || die "PENSTOCK_LIBTORCH=$named: $file is missing"
  done

  marker="user library $version at $library"
  if ! is_complete "$marker"; then
    take_lock
    if ! is_complete "$marker"; then
      make_stage
      ln -s -- "$library/lib" "$stage/new/lib"
      ln -s -- "$library/include" "$stage/new/include"
      # torch-sys takes 2.11.0 and nothing else; patch releases keep the interface.
      [ "${version%%+*}" = "$VERSION" ] || version="$VERSION+as.$version"
      printf '%s\n' "$version" >"$stage/new/build-version"
      publish "$marker"
    fi
  fi
  say "ready: $marker"
}

# === the library from the wheels

# Names everything that is missing at once, with what to install.
check_needs() {
  local missing=() free
  [ "$(uname -s) $(uname -m)" = "Linux x86_64" ] \
    || die "this needs Linux on x86_64, not $(uname -s) on $(uname -m); name a libtorch of your own in PENSTOCK_LIBTORCH"
  if ! command -v "$PYTHON" >/dev/null; then
    missing+=("$PYTHON (Debian: python3 python3-pip)")
  elif ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 9))'; then
    missing+=("Python 3.9 or newer as $PYTHON")
  elif ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
    missing+=("pip for $PYTHON (Debian: python3-pip)")
  fi
  command -v "$CC" >/dev/null || missing+=("a C compiler as $CC (Debian: gcc)")
  command -v "$CXX" >/dev/null || missing+=("a C++ compiler as $CXX (Debian: g++)")
  if [ ${#missing[@]} -gt 0 ]; then
    local list
    list=$(printf '; %s' "${missing[@]}")
    die "please install ${list:2}"
  fi
  free=$(df -Pk -- "$ROOT" | awk 'NR == 2 { print int($4 / 1024) }')
  [ "$free" -ge "$NEEDED_MIB" ] \
    || die "$ROOT has $free MiB free, $NEEDED_MIB MiB are needed while setting up (420 MiB stay)"
}

# Puts the wheels that are not there yet into folder $1; every hash is checked, by us or by pip.
fetch_wheels() {
  local folder=$1 wheel requirement file sha256 options=()
  : >"$stage/tmp/requirements.txt"
  for wheel in "${WHEELS[@]}"; do
    read -r -d '' requirement file sha256 <<<"$wheel" || true
    if [ ! -f "$folder/$file" ]; then
      printf '%s --hash=sha256:%s\n' "$requirement" "$sha256" >>"$stage/tmp/requirements.txt"
    elif ! printf '%s  %s\n' "$sha256" "$folder/$file" | sha256sum --check --status; then
      die "$folder/$file is damaged (its SHA-256 differs): delete it and call again"
    fi
  done
  if [ ! -s "$stage/tmp/requirements.txt" ]; then
    say "[1/4] wheels found in $folder"
    return
  fi
  say "[1/4] downloading torch $VERSION and two small CUDA libraries from PyPI (544 MB)"
  [ -t 2 ] || options=(--quiet)
  TMPDIR="$stage/tmp" PIP_REQUIRE_VIRTUALENV=0 "$PYTHON" -m pip download "${options[@]+"${options[@]}"}" \
    --disable-pip-version-check --no-input --no-cache-dir --no-deps --only-binary=:all: \
    --require-hashes --dest "$folder" \
    --implementation cp --python-version 3.12 --abi cp312 --abi none \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    -r "$stage/tmp/requirements.txt" >&2 \
    || die "the download failed (see above); call again, or put the wheels into a folder named by PENSTOCK_WHEELS"
}

# Takes headers, CPU libraries and licence texts out of the wheels in $1 into folder $2.
unpack() {
  local wheel files=()
  for wheel in "${WHEELS[@]}"; do
    files+=("$(awk 'NR == 2 { print $1 }' <<<"$wheel")")
  done
  "$PYTHON" - "$1" "$2" "${files[@]}" <<'PY'
import shutil
import sys
import zipfile
from pathlib import Path, PurePosixPath

LIBRARIES = {
    "libc10.so", "libtorch_cpu.so", "libshm.so", "libgomp.so.1", "libcudart.so.13", "libcupti.so.13",
}


def destination(member):
    """Where a file of a wheel goes, or None when we do without it."""
    path = PurePosixPath(member)
    if path.parts[:2] == ("torch", "include"):
        return path.relative_to("torch")
    if path.parent.name == "lib" and path.name in LIBRARIES:
        return PurePosixPath("lib", path.name)
    if path.parts[0].endswith(".dist-info") and "licen" in member.lower():
        return PurePosixPath("licenses", path.parts[0].split("-")[0], path.name)
    return None


folder, out, *wheels = sys.argv[1:]
for wheel in wheels:
    with zipfile.ZipFile(Path(folder, wheel)) as archive:
        for info in archive.infolist():
            place = None if info.is_dir() else destination(info.filename)
            if place is None:
                continue
            target = Path(out, place)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
missing = LIBRARIES - {path.name for path in Path(out, "lib").iterdir()}
if missing:
    sys.exit("libtorch: error: not in the wheels: " + ", ".join(sorted(missing)))
PY
}

# Adds to folder $1 what the wheels lack: the CPU-only libtorch.so, a name for -lgomp, the version.
complete_library() {
  chmod 755 "$1"/lib/*.so*
  if command -v strip >/dev/null; then
    strip --strip-unneeded "$1/lib/libtorch_cpu.so" || say "strip failed; the library stays 90 MB larger"
  fi
  echo 'void penstock_libtorch_without_cuda(void) {}' >"$stage/tmp/libtorch.c"
  # shellcheck disable=SC2016  # $ORIGIN is for the dynamic loader, not for the shell
  "$CC" -shared -fPIC -o "$1/lib/libtorch.so" "$stage/tmp/libtorch.c" \
    -Wl,-soname,libtorch.so -Wl,-rpath,'$ORIGIN' -Wl,--no-as-needed -Wl,--allow-shlib-undefined \
    -L"$1/lib" -ltorch_cpu -lc10
  ln -s libgomp.so.1 "$1/lib/libgomp.so"
  echo "$VERSION+cpu" >"$1/build-version"
}

# The library in folder $1 must load on its own, whatever else the machine has.
test_library() {
  env -u LD_LIBRARY_PATH -u LD_PRELOAD \
    "$PYTHON" -c 'import ctypes, os, sys; ctypes.CDLL(sys.argv[1], os.RTLD_NOW)' "$1/lib/libtorch.so" >&2 \
    || die "the library does not load on this machine (see above); it needs glibc 2.28 or newer"
}

use_wheels() {
  if ! is_complete "$RECIPE"; then
    take_lock
    if ! is_complete "$RECIPE"; then
      check_needs
      make_stage
      local folder=${PENSTOCK_WHEELS:-$stage/wheels}
      mkdir -p -- "$folder" || die "PENSTOCK_WHEELS=$folder: cannot be made"
      fetch_wheels "$(cd -- "$folder" && pwd -P)"
      say "[2/4] unpacking headers and CPU libraries"
      unpack "$folder" "$stage/new"
      say "[3/4] stripping symbols, linking a CPU-only libtorch.so"
      complete_library "$stage/new"
      say "[4/4] checking that it loads"
      test_library "$stage/new"
      publish "$RECIPE"
    fi
  fi
  say "ready: libtorch $VERSION (CPU) in .libtorch/"
}

if [ -n "${PENSTOCK_LIBTORCH:-}" ]; then
  use_own_library "$PENSTOCK_LIBTORCH"
else
  use_wheels
fi
