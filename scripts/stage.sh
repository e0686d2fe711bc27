#!/usr/bin/env bash
# Runs the stages of `make test` and tells how long each took and how many tests passed.
#
#   stage.sh begin               forget the stages of an earlier run
#   stage.sh run NAME COMMAND... run one stage; its output is shown and kept in target/stages/NAME.log
#   stage.sh summary             print times and counts of all stages of this run
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${CARGO_TARGET_DIR:-target}/stages
times=$folder/times

# counts LOG: passed, failed and ignored tests, added up over the result lines of cargo and of Vitest.
counts() {
    awk '
        /^test result: / {
            for (i = 2; i <= NF; i++) {
                if ($i ~ /^passed/) passed += $(i - 1)
                if ($i ~ /^failed/) failed += $(i - 1)
                if ($i ~ /^ignored/) ignored += $(i - 1)
            }
        }
        /^ +Tests  / {
            for (i = 2; i <= NF; i++) {
                if ($i == "passed") passed += $(i - 1)
                if ($i == "failed") failed += $(i - 1)
                if ($i == "skipped") ignored += $(i - 1)
            }
        }
        END { print passed + 0, failed + 0, ignored + 0 }' "$1"
}

run() {
    local name=$1 started=$SECONDS status=0
    shift
    printf '\n==> %s: %s\n' "$name" "$*"
    mkdir -p "$folder"
    # No colours: the counts are read from the text.
    NO_COLOR=1 CARGO_TERM_COLOR=never "$@" 2>&1 | tee "$folder/$name.log" || status=$?
    printf '%s %s %s\n' "$name" "$((SECONDS - started))" "$status" >>"$times"
    if ((status)); then
        summary
        printf 'stage: %s failed (exit status %s)\n' "$name" "$status" >&2
        exit "$status"
    fi
}

summary() {
    local name seconds status passed failed ignored total_s=0 total_passed=0 total_failed=0 total_ignored=0
    printf '\n%-12s %8s %8s %8s %8s\n' stage seconds passed failed ignored
    while read -r name seconds status; do
        read -r passed failed ignored < <(counts "$folder/$name.log")
        total_s=$((total_s + seconds)) total_passed=$((total_passed + passed))
        total_failed=$((total_failed + failed)) total_ignored=$((total_ignored + ignored))
        printf '%-12s %8s %8s %8s %8s%s\n' "$name" "$seconds" "$passed" "$failed" "$ignored" "$([[ $status == 0 ]] || echo '  FAILED')"
    done <"$times"
    printf '%-12s %8s %8s %8s %8s\n' total "$total_s" "$total_passed" "$total_failed" "$total_ignored"
}

case "${1-}" in
    begin) mkdir -p "$folder" && : >"$times" ;;
    run)
        shift
        (($# >= 2)) || { echo "stage: expected \`run NAME COMMAND...\`" >&2 && exit 2; }
        run "$@"
        ;;
    summary) summary ;;
    *) echo "stage: expected begin, run or summary, found \`$*\`" >&2 && exit 2 ;;
esac
