#!/usr/bin/env bash
# docs.sh BINARY: writes the parts of docs/ that come from the code's own tables.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:?usage: docs.sh BINARY}

# page FILE TITLE INTRODUCTION PART
page() {
    {
        printf '# %s\n\n%s\n\n' "$2" "$3"
        "$binary" reference "$4"
    } >"$1.new"
    mv "$1.new" "$1"
}

page docs/config.md "Configuration file" \
    "One TOML file, \`version = 1\`; every key below is optional unless it says otherwise, and unknown keys are errors. \`penstock check FILE\` prints every problem. Editors can use [config.schema.json](config.schema.json). This page is written by \`make docs\`." \
    config
page docs/model.md "model.toml" \
    "Each model has a \`model.toml\` beside its version folders; [serving.md](serving.md) explains it by example. Editors can use [model.schema.json](model.schema.json). This page is written by \`make docs\`." \
    model
page docs/metrics.md "Metrics" \
    "Prometheus text at \`/metrics\` on the metrics port. Times are seconds unless the name says otherwise; the \`nv_\` names are those that dashboards for Triton know. This page is written by \`make docs\`." \
    metrics
"$binary" reference config-schema >docs/config.schema.json
"$binary" reference model-schema >docs/model.schema.json
