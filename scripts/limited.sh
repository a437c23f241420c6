#!/usr/bin/env bash
# Runs a command that is to end within so many minutes, and says how long it took. One that does
# not is stopped with all it started and fails: a step that hangs costs its limit, not the run.
#
#   scripts/limited.sh MINUTES COMMAND [ARG…]
set -euo pipefail

if [ $# -lt 2 ]; then
  printf 'limited: error: say MINUTES COMMAND [ARG…]\n' >&2
  exit 2
fi
readonly MINUTES=$1
shift
readonly TIMEFORMAT="limited: %0R s of $((MINUTES * 60)), on processors %0U s and in the system %0S s: $*"

# Waits on when a signal ends a wait before the command has ended.
wait_for_it() {
  while :; do
    status=0
    wait "$CHILD" || status=$?
    kill -0 "$CHILD" 2>/dev/null || break
  done
}

# A group of its own, so that what the command started ends with it; without job control the
# command would be deaf to SIGINT.
set -m
timeout --kill-after=20 "${MINUTES}m" "$@" </dev/null &
readonly CHILD=$!
stopped=false
trap 'stopped=true; kill -TERM "$CHILD"' INT TERM HUP
time wait_for_it
if $stopped; then exit 130; fi
case $status in
  124 | 137) printf 'limited: error: did not end within %s minutes: %s\n' "$MINUTES" "$*" >&2 ;;
esac
exit "$status"
