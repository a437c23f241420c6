#!/usr/bin/env bash
# Installs the servers that Penstock is compared with into .peers/ (git-ignored), from PyPI.
#
#   scripts/peers.sh              all of them
#   scripts/peers.sh NAME…        some: triton, mlserver, torchserve, litserve
#
# Each has a Python environment of its own; all share one PyTorch, in .peers/torch. A peer that cannot
# be installed does not stop the others: the reason goes into .peers/NAME.failed, from where it gets
# into the table, and the exit status stays 0.
# No root is needed, and about 3 GB of disk. Triton's libtorch backend is compiled from
# benches/peers/apps/triton/backend.cc against .libtorch, so scripts/libtorch.sh comes first.
# PENSTOCK_WHEELS=/folder is searched for wheels first; PYTHON, CC and CXX name other programs.
set -euo pipefail

readonly NEEDED_MIB=4000
# Also knows current wheel tags where the system's own pip is older.
readonly PIP=pip==25.3
readonly ALL=(triton mlserver torchserve litserve)
readonly RECIPE=1 # raise the number when the result changes

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
readonly ROOT PEERS="$ROOT/.peers" SOURCE="$ROOT/benches/peers"
PYTHON=${PYTHON:-python3}
CC=${CC:-cc}
CXX=${CXX:-c++}
export CC

say() { printf 'peers: %s\n' "$*" >&2; }
die() {
  printf 'peers: error: %s\n' "$*" >&2
  exit 1
}

# What an environment is made from; it is made anew when this changes.
recipe() {
  local files=("$SOURCE/requirements/$1.txt")
  [ "$1" != torch ] || files+=("$ROOT/models/export/stub_cuda.py")
  { cat -- "${files[@]}" && "$PYTHON" -V && echo "$RECIPE"; } | sha256sum | cut -d ' ' -f 1
}

is_complete() {
  local venv="$PEERS/$1"
  [ -x "$venv/bin/python" ] && [ -f "$venv/.complete" ] && [ "$(cat -- "$venv/.complete")" = "$(recipe "$1")" ]
}

# Names everything that is missing at once, with what to install.
check_needs() {
  local missing=() free tool list
  [ "$(uname -s) $(uname -m)" = "Linux x86_64" ] || die "this needs Linux on x86_64"
  if ! command -v "$PYTHON" >/dev/null; then
    missing+=("$PYTHON (Debian: python3 python3-pip)")
  else
    "$PYTHON" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
      || missing+=("Python 3.10 to 3.13 (the servers have no wheel for $("$PYTHON" -V)); name one with PYTHON=")
    "$PYTHON" -m pip --version >/dev/null 2>&1 || missing+=("pip for $PYTHON (Debian: python3-pip)")
    "$PYTHON" -c 'import venv' 2>/dev/null || missing+=("venv for $PYTHON (Debian: python3-venv)")
  fi
  for tool in "$CC" nm readelf; do
    command -v "$tool" >/dev/null || missing+=("$tool (Debian: gcc binutils)")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    list=$(printf '; %s' "${missing[@]}")
    die "please install ${list:2}"
  fi
  free=$(df -Pk -- "$ROOT" | awk 'NR == 2 { print int($4 / 1024) }')
  [ "$free" -ge "$NEEDED_MIB" ] || die "$ROOT has $free MiB free, $NEEDED_MIB MiB are needed"
}

site_of() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

# Makes .peers/$1 with its requirements in it.
make_venv() {
  local name=$1 venv="$PEERS/$1" options=(--disable-pip-version-check --no-input --no-cache-dir --only-binary=:all:)
  # The list for torch leaves its CUDA libraries out, the wheel for Triton its Python interface.
  case $name in torch | triton) options+=(--no-deps) ;; esac
  [ -z "${PENSTOCK_WHEELS:-}" ] || options+=(--find-links "$PENSTOCK_WHEELS")
  [ -t 2 ] || options+=(--quiet)
  rm -rf -- "$venv"
  mkdir -p "$venv/tmp"
  "$PYTHON" -m venv --without-pip "$venv"
  TMPDIR="$venv/tmp" PIP_REQUIRE_VIRTUALENV=0 PIP_ROOT_USER_ACTION=ignore \
    "$PYTHON" -m pip install "${options[@]}" --target "$venv/tmp/pip" "$PIP" >&2 || return 1
  TMPDIR="$venv/tmp" PYTHONPATH="$venv/tmp/pip" "$venv/bin/python" -m pip install "${options[@]}" \
    -r "$SOURCE/requirements/$name.txt" >&2 || return 1
  rm -rf -- "$venv/tmp"
}

finish_torch() {
  "$PEERS/torch/bin/python" "$ROOT/models/export/stub_cuda.py" "$(site_of "$PEERS/torch")" >&2
  "$PEERS/torch/bin/python" -W ignore -c 'import numpy, torch'
}

# The stub that runs Python models must be the one for this Python and lie beside the backend.
finish_triton() {
  local server version
  server="$(site_of "$PEERS/triton")/pytriton/tritonserver"
  version=$("$PEERS/triton/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  chmod +x "$server/bin/tritonserver"
  install -m 755 "$server/python_backend_stubs/$version/triton_python_backend_stub" "$server/backends/python/"
}

# The wheel has no libtorch backend, so ours is compiled against the libtorch that Penstock uses.
compile_backend() {
  local folder source="$SOURCE/apps/triton/backend.cc" libtorch="$ROOT/.libtorch" marker
  [ -f "$PEERS/triton/.complete" ] || { say "error: triton is not installed"; return 1; }
  [ -f "$libtorch/.complete" ] || { say "error: there is no .libtorch, run scripts/libtorch.sh first"; return 1; }
  command -v "$CXX" >/dev/null || { say "error: $CXX is missing (Debian: g++)"; return 1; }
  folder="$(site_of "$PEERS/triton")/pytriton/tritonserver/backends/libtorch"
  marker=$(cat -- "$source" "$libtorch/.complete" | sha256sum)
  if [ -f "$folder/.complete" ] && [ "$(cat -- "$folder/.complete")" = "$marker" ]; then return; fi
  say "compiling Triton's libtorch backend"
  rm -rf -- "$folder"
  mkdir -p "$folder"
  "$CXX" -std=c++17 -O3 -DNDEBUG -Wall -Wextra -shared -fPIC -fvisibility=hidden \
    -isystem "$libtorch/include" -isystem "$libtorch/include/torch/csrc/api/include" \
    -o "$folder/libtriton_libtorch.so" "$source" \
    -L"$libtorch/lib" -Wl,--no-as-needed -ltorch -ltorch_cpu -lc10 -Wl,-rpath,"$libtorch/lib" || return 1
  printf '%s\n' "$marker" >"$folder/.complete"
}

share_torch() {
  site_of "$PEERS/torch" >"$(site_of "$PEERS/$1")/shared-torch.pth"
  "$PEERS/$1/bin/python" -W ignore -c 'import numpy, torch'
}

install_one() {
  local name=$1
  if [ "$name" = triton-libtorch ]; then
    compile_backend
    return
  fi
  if is_complete "$name"; then return; fi
  say "making .peers/$name"
  make_venv "$name" || return 1
  case $name in
    torch) finish_torch ;;
    triton) finish_triton && share_torch triton ;;
    *) share_torch "$name" ;;
  esac || return 1
  recipe "$name" >"$PEERS/$name/.complete"
}

# Keeps the reason of a failure, its last words, for the table.
try() {
  local name=$1 log="$PEERS/$1.log"
  rm -f -- "$PEERS/$name.failed"
  # Not as a condition: there, errors would no longer end it.
  set +e
  (set -e; install_one "$name") 2>&1 >/dev/null | tee "$log" >&2
  local status=${PIPESTATUS[0]}
  set -e
  [ "$status" -ne 0 ] || return 0
  [ "$name" = triton-libtorch ] || rm -f -- "$PEERS/$name/.complete"
  { grep -iE 'error' "$log" || cat -- "$log"; } | tail -n 1 | cut -c 1-200 >"$PEERS/$name.failed"
  say "$name could not be installed; the table will say so"
}

names=("$@")
[ ${#names[@]} -gt 0 ] || names=("${ALL[@]}")
for name in "${names[@]}"; do
  [[ " ${ALL[*]} " = *" $name "* ]] || die "unknown peer '$name': say some of ${ALL[*]}"
done

# One call at a time; the lock is this script's own file and ends with the process.
command -v flock >/dev/null || die "flock is missing: install util-linux"
exec 9<"$ROOT/scripts/peers.sh"
if ! flock -n 9; then
  say "another call is at work, waiting for it"
  flock 9 || die "cannot lock $ROOT/scripts/peers.sh"
fi

for name in torch "${names[@]}"; do
  is_complete "$name" || { check_needs && break; }
done
mkdir -p "$PEERS"
for name in torch "${names[@]}"; do
  try "$name"
  [ "$name" != triton ] || try triton-libtorch
done
