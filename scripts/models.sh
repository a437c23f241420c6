#!/usr/bin/env bash
# Exports the example models, in a Python environment of its own (.venv/export, made on first use).
#
#   scripts/models.sh           the larger ones, resnet18 and minilm, into models/extra/ (git-ignored)
#   scripts/models.sh digits    trains the committed ones again and rewrites models/repository/
#   scripts/models.sh check     recomputes the committed ones' figures with PyTorch and compares
#   scripts/models.sh venv      only makes the environment
#
# The environment takes 1.8 GB instead of PyPI's usual 5: see models/export/stub_cuda.py.
# No root is needed. PENSTOCK_WHEELS=/folder is searched for wheels first; PYTHON and CC name other
# programs than python3 and cc.
set -euo pipefail

readonly NEEDED_MIB=3000
# Also knows --python and current wheel tags where the system's own pip is older.
readonly PIP=pip==25.3

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
readonly ROOT VENV="$ROOT/.venv/export" EXPORT="$ROOT/models/export"
PYTHON=${PYTHON:-python3}
CC=${CC:-cc}
export CC

say() { printf 'models: %s\n' "$*" >&2; }
die() {
  printf 'models: error: %s\n' "$*" >&2
  exit 1
}

# What the environment is made from; it is made anew when this changes.
recipe() {
  cat -- "$EXPORT/requirements.txt" "$EXPORT/stub_cuda.py" | sha256sum | cut -d ' ' -f 1
}

is_complete() {
  [ -x "$VENV/bin/python" ] && [ -f "$VENV/.complete" ] && [ "$(cat -- "$VENV/.complete")" = "$(recipe)" ]
}

# Names everything that is missing at once, with what to install.
check_needs() {
  local missing=() free tool list
  [ "$(uname -s) $(uname -m)" = "Linux x86_64" ] || die "this needs Linux on x86_64"
  if ! command -v "$PYTHON" >/dev/null; then
    missing+=("$PYTHON (Debian: python3 python3-pip)")
  else
    "$PYTHON" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' \
      || missing+=("Python 3.10 to 3.14 (PyTorch 2.11 has no wheel for $("$PYTHON" -V)); name one with PYTHON=")
    "$PYTHON" -m pip --version >/dev/null 2>&1 || missing+=("pip for $PYTHON (Debian: python3-pip)")
    "$PYTHON" -c 'import venv' 2>/dev/null || missing+=("venv for $PYTHON (Debian: python3-venv)")
  fi
  command -v "$CC" >/dev/null || missing+=("a C compiler as $CC (Debian: gcc)")
  for tool in nm readelf; do
    command -v "$tool" >/dev/null || missing+=("$tool (Debian: binutils)")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    list=$(printf '; %s' "${missing[@]}")
    die "please install ${list:2}"
  fi
  free=$(df -Pk -- "$ROOT" | awk 'NR == 2 { print int($4 / 1024) }')
  [ "$free" -ge "$NEEDED_MIB" ] || die "$ROOT has $free MiB free, $NEEDED_MIB MiB are needed"
}

make_venv() {
  check_needs
  local options=(--disable-pip-version-check --no-input --no-cache-dir --no-deps --only-binary=:all:) site
  [ -z "${PENSTOCK_WHEELS:-}" ] || options+=(--find-links "$PENSTOCK_WHEELS")
  [ -t 2 ] || options+=(--quiet)

  say "[1/3] making .venv/export"
  rm -rf -- "$VENV"
  mkdir -p "$VENV/tmp"
  "$PYTHON" -m venv --without-pip "$VENV"
  export TMPDIR="$VENV/tmp" PIP_REQUIRE_VIRTUALENV=0 PIP_ROOT_USER_ACTION=ignore
  "$PYTHON" -m pip install "${options[@]}" --target "$VENV/tmp/pip" "$PIP" >&2 || die "cannot install $PIP (see above)"
  say "[2/3] installing PyTorch and what the exports need (about 750 MB to download)"
  PYTHONPATH="$VENV/tmp/pip" "$VENV/bin/python" -m pip install "${options[@]}" \
    -r "$EXPORT/requirements.txt" >&2 || die "the installation failed (see above); call again"
  say "[3/3] standing in for the CUDA libraries"
  site=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  "$VENV/bin/python" "$EXPORT/stub_cuda.py" "$site" >&2
  "$VENV/bin/python" -W ignore -c 'import torch, torchvision' || die "PyTorch cannot be imported (see above)"
  unset TMPDIR
  rm -rf -- "$VENV/tmp"
  recipe >"$VENV/.complete"
}

run() {
  is_complete || make_venv
  # The hash seed decides the order in which torch writes constants, and with it the checksum.
  PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 "$VENV/bin/python" "$EXPORT/$1.py" "${@:2}"
}

# Skipped while what lies there was made by these very scripts; .complete is written last.
extra() {
  local marker="$ROOT/models/extra/.complete" sources
  sources=$(cat -- "$EXPORT"/*.py "$EXPORT/requirements.txt" | sha256sum)
  if [ -f "$marker" ] && [ "$(cat -- "$marker")" = "$sources" ]; then
    say "models/extra/ is complete"
    return
  fi
  rm -f -- "$marker"
  run extra "$ROOT/models/extra"
  printf '%s\n' "$sources" >"$marker"
}

# One call at a time; the lock is this script's own file and ends with the process.
command -v flock >/dev/null || die "flock is missing: install util-linux"
exec 9<"$ROOT/scripts/models.sh"
if ! flock -n 9; then
  say "another call is at work, waiting for it"
  flock 9 || die "cannot lock $ROOT/scripts/models.sh"
fi

case ${1:-extra} in
  extra) extra ;;
  digits) run digits "$ROOT/models" ;;
  check) run check "$ROOT/models" ;;
  venv) is_complete || make_venv ;;
  *) die "unknown word '$1': say extra, digits, check or venv" ;;
esac
