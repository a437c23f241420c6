#!/usr/bin/env bash
# Runs every test with real clients; arguments go to pytest. See scripts/clients.sh.
set -euo pipefail
exec "$(dirname -- "${BASH_SOURCE[0]}")/../../../scripts/clients.sh" --run "$@"
