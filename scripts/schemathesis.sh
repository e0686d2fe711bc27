#!/usr/bin/env bash
# Asks a node whatever its description of the interface allows, and much that it does not: nothing may end in a server error.
#
#   scripts/schemathesis.sh [EXAMPLES]     EXAMPLES per operation, 50 by default
#
# Starts `conurb serve --dev` (or the program that CONURB names) on an empty folder and free ports; schemathesis comes from PyPI into
# target/pypi. Other arguments of schemathesis: SCHEMATHESIS_ARGS.
set -euo pipefail
cd "$(dirname "$0")/.."

examples=${1:-50}
program=${CONURB:-target/quick/conurb}
version=4.32.5
ready_seconds_max=60

fail() {
    printf 'schemathesis: %s\n' "$*" >&2
    exit 1
}

[[ -x $program ]] || fail "there is no \`$program\`: build it (make build), or name one with CONURB"
tools=target/pypi/schemathesis-script
if [[ ! -x $tools/bin/schemathesis ]]; then
    python3 -m venv "$tools"
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check "schemathesis==$version"
fi

folder=$(mktemp -d)
node=
end() {
    [[ -z $node ]] || kill "$node" 2>/dev/null || true
    [[ -z $node ]] || wait "$node" 2>/dev/null || true
    rm -rf "$folder"
}
trap end EXIT

free=127.0.0.1:0
mkfifo "$folder/ready"
"$program" serve --dev --data "$folder/data" --http $free --mqtt $free --sql $free --flight $free --log warn >"$folder/ready" &
node=$!
read -r -t $ready_seconds_max line <"$folder/ready" || fail "the node did not start"
http=$(python3 -c 'import json, sys; print(json.loads(sys.argv[1])["http"])' "$line")

# shellcheck disable=SC2086 # several arguments are wanted
"$tools/bin/schemathesis" run "http://$http/openapi.json" --checks not_a_server_error --include-path-regex '^/ngsi-ld/' \
    --phases examples,coverage,fuzzing --max-examples "$examples" --request-timeout 10 ${SCHEMATHESIS_ARGS:-}
