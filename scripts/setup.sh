#!/usr/bin/env bash
# Installs what is missing to build, show (--for demo) or test (--for test) conurb, and says what it does.
# With everything present it does not touch the system: no apt-get, no npm, under a second.
set -euo pipefail

rust_min=1.95
node_min=20.19

say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

goal=
case "$#:${1-}:${2-}" in
    2:--for:demo | 2:--for:test) goal=$2 ;;
    1:--help: | 1:-h:)
        echo 'usage: scripts/setup.sh --for demo|test'
        exit 0
        ;;
    *) fail "expected \`--for demo\` or \`--for test\`, found \`$*\`" ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

has() { command -v "$1" >/dev/null 2>&1; }

# at_least FOUND WANTED: compares the first two parts of two versions.
at_least() {
    local found_major found_minor wanted_major wanted_minor
    IFS=. read -r found_major found_minor _ <<<"$1"
    IFS=. read -r wanted_major wanted_minor _ <<<"$2"
    ((found_major > wanted_major || (found_major == wanted_major && found_minor >= wanted_minor)))
}

# Rust is expected: which toolchain a machine has is its owner's choice.
check_rust() {
    local found component
    has cargo || fail "cargo is missing: install Rust $rust_min or newer from https://rustup.rs, then start again"
    found=$(rustc --version) || fail "rustc does not run: repair the Rust toolchain (https://rustup.rs)"
    found=${found#rustc }
    found=${found%% *}
    at_least "$found" "$rust_min" || fail "found Rust $found, $rust_min or newer is needed: run \`rustup update stable\`"
    [[ $goal == test ]] || return 0
    for component in rustfmt clippy-driver; do
        has "$component" || fail "$component is missing: run \`rustup component add rustfmt clippy\`"
    done
}

missing_packages() {
    has cc || echo build-essential
    has node || echo nodejs
    has npm || echo npm
    [[ $goal == test ]] || return 0
    has curl || echo curl
    has mosquitto_pub || echo mosquitto-clients
    has psql || echo postgresql-client
    has chromium || echo chromium
    # Clients of SQL and object storage from PyPI, in environments of their own.
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    # Runs a node whose clock is an hour off.
    compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || echo libfaketime
    # The console's Chinese text needs glyphs for the screenshots of the end-to-end tests.
    compgen -G '/usr/share/fonts/*/noto/NotoSansCJK*' >/dev/null || echo fonts-noto-cjk
}

install_packages() {
    local packages as_root=()
    mapfile -t packages < <(missing_packages)
    ((${#packages[@]})) || return 0
    has apt-get || fail "missing: ${packages[*]} (names of Debian packages): this system has no apt-get, install them by its own means"
    if ((EUID != 0)); then
        has sudo || fail "missing: ${packages[*]}: run as root \`apt-get install ${packages[*]}\`"
        as_root=(sudo)
    fi
    as_root+=(env DEBIAN_FRONTEND=noninteractive)
    say "installing ${packages[*]}"
    "${as_root[@]}" apt-get update -q || fail "\`apt-get update\` failed"
    "${as_root[@]}" apt-get install -q -y --no-install-recommends "${packages[@]}" || fail "\`apt-get install ${packages[*]}\` failed"
    mapfile -t packages < <(missing_packages)
    ((${#packages[@]} == 0)) || fail "still missing after the installation: ${packages[*]}"
}

check_node() {
    local found
    found=$(node --version) || fail "node does not run"
    found=${found#v}
    at_least "$found" "$node_min" || fail "found Node.js $found, $node_min or newer is needed: https://nodejs.org/en/download"
}

# npm notes in the hidden lock file what it has installed.
install_ui() {
    local lock=ui/package-lock.json installed=ui/node_modules/.package-lock.json
    [[ -f $lock ]] || fail "$lock is missing: is the checkout complete?"
    if [[ -f $installed && ! $lock -nt $installed ]]; then
        return 0
    fi
    say "installing the console's dependencies (npm ci in ui/)"
    (cd ui && npm ci --no-audit --no-fund) || fail "\`npm ci\` in ui/ failed"
    touch "$installed"
}

check_rust
install_packages
check_node
install_ui
say "everything for \`make $goal\` is here"
