#!/usr/bin/env bash
# Calls the gateway with real, unmodified clients, and checks what it is deployed with: pytest in
# Python environments of its own (.venv/tritonclient, .venv/kserve, .venv/tools and .venv/tables,
# made on first use; the clients have one each, because both register the same protobuf symbols).
#
#   scripts/clients.sh                 makes the environments
#   scripts/clients.sh --run [ARG…]    runs every test suite; ARGs go to pytest
#   scripts/clients.sh --perf          fetches perf_analyzer into .venv/perf (optional, see below)
#   scripts/clients.sh --mlserver      makes .venv/mlserver, an upstream for tests (optional)
#   scripts/clients.sh --promtool      fetches promtool into .venv/promtool (optional, see below)
#
# The tests need a built gateway, load generator, and makers of models and certificates:
#   cargo build -p penstock -p penstock-loadtest && cargo build -p engine-torch --example fixtures
#   cargo build -p penstock --example certificates
# PENSTOCK_BINARY, PENSTOCK_LOADTEST, PENSTOCK_FIXTURES and PENSTOCK_CERTIFICATES name other ones
# than those in target/debug.
# PENSTOCK_WHEELS=/folder is searched for wheels first; PYTHON names another program than python3.
# No root is needed. perf_analyzer is an x86-64 program that newer client wheels lack; the last one
# needs libb64 (Debian: libb64-0d). promtool, which tries the alert rules, is part of Debian's
# prometheus; it is taken out of that package where the system has none. Where one of the two
# cannot start its tests are skipped.
set -euo pipefail

# Also knows current wheel tags where the system's own pip is older.
readonly PIP=pip==25.3

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
readonly ROOT TESTS="$ROOT/gateway/tests/clients"
PYTHON=${PYTHON:-python3}

say() { printf 'clients: %s\n' "$*" >&2; }
die() {
  printf 'clients: error: %s\n' "$*" >&2
  exit 1
}

requirements() {
  printf '%s/requirements-%s.txt' "$TESTS" "$1"
}

# A file of requirements, followed by those that it reads.
sources() {
  local other others
  cat -- "$1"
  others=$(sed -n 's/^-r *//p' -- "$1")
  for other in $others; do sources "$(dirname -- "$1")/$other" || return 1; done
}

# What an environment is made from; it is made anew when this changes.
recipe() {
  { sources "$(requirements "$1")" && "$PYTHON" -V; } | sha256sum | cut -d ' ' -f 1
}

is_complete() {
  local venv="$ROOT/.venv/$1"
  [ -x "$venv/bin/python" ] && [ -f "$venv/.complete" ] && [ "$(cat -- "$venv/.complete")" = "$(recipe "$1")" ]
}

# Names everything that is missing at once, with what to install.
check_needs() {
  local missing=() list
  if ! command -v "$PYTHON" >/dev/null; then
    missing+=("$PYTHON (Debian: python3 python3-pip)")
  else
    "$PYTHON" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' \
      || missing+=("Python 3.10 to 3.14 (the clients have no wheel for $("$PYTHON" -V)); name one with PYTHON=")
    "$PYTHON" -m pip --version >/dev/null 2>&1 || missing+=("pip for $PYTHON (Debian: python3-pip)")
    "$PYTHON" -c 'import venv' 2>/dev/null || missing+=("venv for $PYTHON (Debian: python3-venv)")
  fi
  if [ ${#missing[@]} -gt 0 ]; then
    list=$(printf '; %s' "${missing[@]}")
    die "please install ${list:2}"
  fi
}

pip_options() {
  OPTIONS=(--disable-pip-version-check --no-input --no-cache-dir --no-deps --only-binary=:all: --ignore-requires-python)
  [ -z "${PENSTOCK_WHEELS:-}" ] || OPTIONS+=(--find-links "$PENSTOCK_WHEELS")
  [ -t 2 ] || OPTIONS+=(--quiet)
}

make_venv() {
  local name=$1 venv="$ROOT/.venv/$1"
  say "making .venv/$name"
  pip_options
  rm -rf -- "$venv"
  mkdir -p "$venv/tmp"
  "$PYTHON" -m venv --without-pip "$venv"
  TMPDIR="$venv/tmp" PIP_REQUIRE_VIRTUALENV=0 PIP_ROOT_USER_ACTION=ignore \
    "$PYTHON" -m pip install "${OPTIONS[@]}" --target "$venv/tmp/pip" "$PIP" >&2 \
    || die "cannot install $PIP: is the package index reachable (see above)?"
  TMPDIR="$venv/tmp" PYTHONPATH="$venv/tmp/pip" "$venv/bin/python" -m pip install "${OPTIONS[@]}" \
    -r "$(requirements "$name")" >&2 || die "the installation failed (see above); call again"
  rm -rf -- "$venv/tmp"
  recipe "$name" >"$venv/.complete"
}

make_venvs() {
  local name
  for name in tritonclient kserve tools tables; do
    is_complete "$name" || { check_needs && make_venv "$name"; }
  done
}

make_mlserver() {
  is_complete mlserver || { check_needs && make_venv mlserver; }
}

# Takes libb64 out of Debian's package where the system has none; nothing is installed.
add_libb64() {
  local folder=$1
  if ldconfig -p 2>/dev/null | grep -q 'libb64\.so\.0d'; then return; fi
  if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null \
    && (cd "$folder/tmp" && apt-get download libb64-0d >/dev/null 2>&1) \
    && dpkg-deb -x "$folder"/tmp/libb64-0d_*.deb "$folder/tmp/deb"; then
    find "$folder/tmp/deb" -name 'libb64.so.0d' -exec cp -L {} "$folder/lib/" \;
  else
    say "libb64.so.0d is missing: perf_analyzer will not start (Debian: libb64-0d)"
  fi
}

make_perf() {
  local folder="$ROOT/.venv/perf"
  [ ! -f "$folder/.complete" ] || return 0
  check_needs
  say "fetching perf_analyzer into .venv/perf"
  pip_options
  rm -rf -- "$folder"
  mkdir -p "$folder/tmp"
  TMPDIR="$folder/tmp" PIP_REQUIRE_VIRTUALENV=0 PIP_ROOT_USER_ACTION=ignore "$PYTHON" -m pip install "${OPTIONS[@]}" --platform manylinux1_x86_64 --platform manylinux2014_x86_64 \
    --target "$folder/tmp/wheels" tritonclient==2.51.0 nvidia-cuda-runtime-cu12==12.4.127 >&2 \
    || die "cannot fetch perf_analyzer (see above)"
  mkdir -p "$folder/bin" "$folder/lib"
  find "$folder/tmp/wheels" -name perf_analyzer -type f -exec mv {} "$folder/bin/" \;
  find "$folder/tmp/wheels" -name 'libcudart.so.12' -exec mv {} "$folder/lib/" \;
  [ -f "$folder/bin/perf_analyzer" ] || die "the wheel holds no perf_analyzer"
  chmod +x "$folder/bin/perf_analyzer"
  add_libb64 "$folder"
  rm -rf -- "$folder/tmp"
  touch "$folder/.complete"
}

# Nothing is installed. Without apt there is none, which the tests say.
make_promtool() {
  local folder="$ROOT/.venv/promtool"
  if command -v promtool >/dev/null || [ -x "$folder/bin/promtool" ]; then return; fi
  say "fetching promtool into .venv/promtool"
  rm -rf -- "$folder"
  mkdir -p "$folder/tmp" "$folder/bin"
  if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null \
    && (cd "$folder/tmp" && apt-get download prometheus >/dev/null 2>&1) \
    && dpkg-deb -x "$folder"/tmp/prometheus_*.deb "$folder/tmp/deb"; then
    mv "$folder/tmp/deb/usr/bin/promtool" "$folder/bin/"
  else
    say "promtool is missing: the alert rules will not be tried (Debian: prometheus)"
  fi
  rm -rf -- "$folder/tmp"
}

# Each suite prints its own closing line; the first failure is the exit status, after all ran.
run_suites() {
  local name status=0 failed
  for name in tritonclient kserve tools tables; do
    say "testing the gateway with $name"
    failed=0
    PYTHONDONTWRITEBYTECODE=1 "$ROOT/.venv/$name/bin/python" -m pytest \
      -c "$TESTS/pytest.ini" --rootdir "$TESTS" "$TESTS/with_$name" "$@" || failed=$?
    # 5: the ARGs selected none of this suite's tests.
    [ "$failed" -eq 0 ] || [ "$failed" -eq 5 ] || [ "$status" -ne 0 ] || status=$failed
  done
  return "$status"
}

# One call makes environments at a time; the lock is this script's own file and ends with the
# process. Test runs do not hold it.
locked() {
  command -v flock >/dev/null || die "flock is missing: install util-linux"
  exec 9<"$ROOT/scripts/clients.sh"
  if ! flock -n 9; then
    say "another call is at work, waiting for it"
    flock 9 || die "cannot lock $ROOT/scripts/clients.sh"
  fi
  "$@"
  exec 9<&-
}

case ${1:-} in
  '') locked make_venvs ;;
  --run)
    locked make_venvs
    run_suites "${@:2}"
    ;;
  --perf) locked make_perf ;;
  --mlserver) locked make_mlserver ;;
  --promtool) locked make_promtool ;;
  *) die "unknown word '$1': say nothing, --run, --perf, --mlserver or --promtool" ;;
esac
