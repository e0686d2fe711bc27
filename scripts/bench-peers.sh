#!/usr/bin/env bash
# The peers of `conurb bench city`: VictoriaMetrics, InfluxDB and PostgreSQL with PostGIS, from Debian's packages.
#
#   scripts/bench-peers.sh install     installs the packages (apt-get, as root); no service is started, none is left enabled
#   scripts/bench-peers.sh check       says which peers are here; fails if one is missing
#   scripts/bench-peers.sh start DIR   starts them with their data below DIR, on free ports of 127.0.0.1; prints one line of JSON
#   scripts/bench-peers.sh stop DIR    stops what `start DIR` started; the folder stays
#
# System services of the same programs are never touched: other ports, other folders, other processes.
set -euo pipefail

packages=(victoria-metrics influxdb postgresql-15 postgresql-15-postgis-3 postgresql-client-15)
services=(victoria-metrics influxdb postgresql)
pg_bin=/usr/lib/postgresql/15/bin
ready_seconds_max=60

say() { printf 'bench-peers: %s\n' "$*" >&2; }
fail() {
    say "$*"
    exit 1
}

missing() {
    command -v victoria-metrics >/dev/null || echo victoria-metrics
    command -v influxd >/dev/null || echo influxdb
    [[ -x $pg_bin/postgres ]] || echo postgresql-15
    [[ -e /usr/share/postgresql/15/extension/postgis.control ]] || echo postgresql-15-postgis-3
    command -v psql >/dev/null || echo postgresql-client-15
}

check() {
    local gone
    mapfile -t gone < <(missing)
    ((${#gone[@]} == 0)) || fail "missing: ${gone[*]} (Debian packages): run \`scripts/bench-peers.sh install\`"
}

# While this file forbids it, packages start no service; one that somebody else put there stays as it is.
install() {
    local as_root=() policy=/usr/sbin/policy-rc.d own_policy=
    ((EUID == 0)) || as_root=(sudo)
    command -v apt-get >/dev/null || fail "this system has no apt-get; install ${packages[*]} by its own means"
    if [[ ! -e $policy ]]; then
        own_policy=$policy
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod +x "$policy"
        trap '"${as_root[@]}" rm -f "$own_policy"' EXIT
    fi
    local running=() service
    for service in "${services[@]}"; do
        systemctl is-active --quiet "$service" 2>/dev/null && running+=("$service")
    done
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -q >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${packages[@]}" >&2
    # What did not run before must not start with the machine.
    for service in "${services[@]}"; do
        [[ " ${running[*]-} " == *" $service "* ]] || "${as_root[@]}" systemctl disable --quiet "$service" 2>/dev/null || true
    done
    check
}

# Free now; whoever takes it before the peer does makes the start fail, not lie.
free_port() {
    local port
    for _ in {1..200}; do
        port=$((20000 + RANDOM % 40000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
    fail "no free port found"
}

# wait_for NAME PID LOG COMMAND...: until the command succeeds.
wait_for() {
    local name=$1 pid=$2 log=$3 i
    shift 3
    for ((i = 0; i < ready_seconds_max * 10; i++)); do
        if "$@" >/dev/null 2>&1; then
            return
        fi
        kill -0 "$pid" 2>/dev/null || fail "$name ended: $(tail -n 3 "$log")"
        sleep 0.1
    done
    fail "$name is not ready after $ready_seconds_max s: see $log"
}

start() {
    check
    local dir=$1 pid port
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    [[ ! -e $dir/pids ]] || fail "\`$dir\` has peers already: run \`scripts/bench-peers.sh stop $dir\`"
    trap 'stop "$dir"' ERR

    local vm_port influx_port influx_rpc_port pg_port
    vm_port=$(free_port)
    victoria-metrics -storageDataPath="$dir/victoriametrics" -httpListenAddr="127.0.0.1:$vm_port" -retentionPeriod=100y \
        -search.disableCache -search.maxUniqueTimeseries=1000000 -search.latencyOffset=0s >"$dir/victoriametrics.log" 2>&1 </dev/null &
    pid=$!
    local vm_pid=$pid
    echo "$pid" >>"$dir/pids"
    wait_for VictoriaMetrics "$pid" "$dir/victoriametrics.log" curl -sf "http://127.0.0.1:$vm_port/health"

    influx_port=$(free_port)
    influx_rpc_port=$(free_port)
    mkdir -p "$dir/influxdb"
    cat >"$dir/influxdb.conf" <<CONF
reporting-disabled = true
bind-address = "127.0.0.1:$influx_rpc_port"
[meta]
  dir = "$dir/influxdb/meta"
[data]
  dir = "$dir/influxdb/data"
  wal-dir = "$dir/influxdb/wal"
  query-log-enabled = false
  cache-snapshot-write-cold-duration = "5s"
  compact-full-write-cold-duration = "10s"
[http]
  bind-address = "127.0.0.1:$influx_port"
  log-enabled = false
[monitor]
  store-enabled = false
CONF
    influxd run -config "$dir/influxdb.conf" >"$dir/influxdb.log" 2>&1 </dev/null &
    pid=$!
    local influx_pid=$pid
    echo "$pid" >>"$dir/pids"
    wait_for InfluxDB "$pid" "$dir/influxdb.log" curl -sf "http://127.0.0.1:$influx_port/ping"

    # PostgreSQL refuses to run as root.
    local as_pg=()
    pg_port=$(free_port)
    mkdir -p "$dir/postgresql"
    if ((EUID == 0)); then
        as_pg=(setpriv --reuid=postgres --regid=postgres --init-groups)
        chown postgres: "$dir/postgresql"
        local up=$dir
        while [[ $up != / ]]; do
            "${as_pg[@]}" test -x "$up" || fail "user postgres may not enter \`$up\`: choose a folder that everybody may enter"
            up=$(dirname "$up")
        done
    fi
    (cd / && "${as_pg[@]}" "$pg_bin/initdb" -D "$dir/postgresql" -U postgres -A trust -E UTF8 --locale=C) >"$dir/postgresql.log" 2>&1 ||
        fail "initdb failed: $(tail -n 3 "$dir/postgresql.log")"
    # Durable as it comes (fsync, synchronous_commit); memory as its documentation advises for a small server.
    (cd / && exec "${as_pg[@]}" "$pg_bin/postgres" -D "$dir/postgresql" -p "$pg_port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
        -c shared_buffers=1GB -c max_wal_size=4GB -c maintenance_work_mem=256MB) >>"$dir/postgresql.log" 2>&1 </dev/null &
    pid=$!
    local pg_pid=$pid
    echo "$pid" >>"$dir/pids"
    wait_for PostgreSQL "$pid" "$dir/postgresql.log" psql -h 127.0.0.1 -p "$pg_port" -U postgres -d postgres -Xqc 'create extension if not exists postgis'
    trap - ERR

    printf '{"victoriametrics":{"pid":%d,"address":"127.0.0.1:%d","dir":"%s"},' "$vm_pid" "$vm_port" "$dir/victoriametrics"
    printf '"influxdb":{"pid":%d,"address":"127.0.0.1:%d","dir":"%s"},' "$influx_pid" "$influx_port" "$dir/influxdb"
    printf '"postgresql":{"pid":%d,"address":"127.0.0.1:%d","dir":"%s"}}\n' "$pg_pid" "$pg_port" "$dir/postgresql"
}

stop() {
    local dir=$1 pid
    [[ -e $dir/pids ]] || return 0
    while read -r pid; do
        # SIGINT: InfluxDB and VictoriaMetrics flush and end, PostgreSQL ends its sessions and shuts down in order.
        kill -INT "$pid" 2>/dev/null || continue
        for _ in {1..200}; do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null || true
    done <"$dir/pids"
    rm -f "$dir/pids"
}

case "$#:${1-}" in
    1:install) install ;;
    1:check) check ;;
    2:start) start "$2" ;;
    2:stop) stop "$2" ;;
    *)
        sed -n '2,9p' "$0" | sed 's/^# \{0,1\}//' >&2
        exit 2
        ;;
esac
