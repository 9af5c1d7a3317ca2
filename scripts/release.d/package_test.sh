#!/usr/bin/env bash
# Runs inside a clean Debian, as root: see scripts/packages. Both packages are installed, used as their users would, and
# removed while mcp-launch runs, which goes on serving.
set -euo pipefail

PORT=8765
SETTINGS=/etc/default/mcp-launch
LAUNCHER=

fail() {
    printf 'failed: %s\n' "$*" >&2
    [[ ! -s /tmp/log ]] || tail -n 30 /tmp/log >&2
    exit 1
}

at_exit() {
    [[ -z $LAUNCHER ]] || kill -KILL "$LAUNCHER" 2>/dev/null || true
}
trap at_exit EXIT

# wait_until WHAT COMMAND…
wait_until() {
    local what=$1 deadline=$((SECONDS + 40))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || fail "$what took too long"
        sleep 0.05
    done
}

# Every file but those that the package managers, the caches and the accounts keep for themselves. Directories do not count:
# an .rpm leaves empty ones that no package has.
files() {
    find / -xdev \( -path /proc -o -path /dev -o -path /tmp -o -path /var/lib/dpkg -o -path /var/lib/rpm -o -path /var/log \
        -o -path /var/cache -o -path /root -o -path /var/lib/systemd \) -prune -o ! -type d -print |
        grep -vE '^/etc/(passwd|group|shadow|gshadow)-?$|^/etc/\.pwd\.lock$' | sort
}

get() {
    python3 -c 'import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1], timeout=5).read().decode())' \
        "http://127.0.0.1:$PORT/"
}

main_process() {
    pgrep -P "$LAUNCHER" -f gunicorn
}

another_main_process() {
    local now
    now=$(main_process) && [[ $now != "$1" ]]
}

is_gone() {
    ! kill -0 "$1"
}

# as_service COMMAND…: with the user and the environment that the unit has. Only that user may ask the launcher.
as_service() {
    # shellcheck disable=SC2046 # the settings of the file are words
    exec env $(grep -v '^#' "$SETTINGS") HOME=/var/lib/mcp-launch MCP_LAUNCH_SOCKET=/tmp/control.sock PYTHONPATH=/given \
        HOST=127.0.0.1 PORT=$PORT setpriv --reuid mcp-launch --regid mcp-launch --clear-groups "$@"
}

is_ready() (as_service mcp-launch health --ready)

start() {
    (as_service mcp-launch --workers 2) >/tmp/log 2>&1 &
    LAUNCHER=$!
    wait_until "the start" is_ready
    get >/dev/null || fail "no answer"
}

# What a user gets.
check_installed() {
    local file
    [[ $(mcp-launch --version) == "mcp-launch "* ]] || fail "--version"
    [[ $(stat --format '%U %a' /usr/bin/mcp-launch) == "root 755" ]] || fail "owner and mode of the program"
    [[ $(zcat /usr/share/man/man1/mcp-launch.1.gz) == *MCP_LAUNCH_STOP_TIMEOUT* ]] || fail "the man page"
    for file in /usr/lib/sysusers.d/mcp-launch.conf "$SETTINGS" /usr/share/doc/mcp-launch/examples/mcp-launch.toml \
        /usr/share/doc/mcp-launch/mcp-launch.cdx.json "$@"; do
        [[ $(stat --format '%U %a' "$file") == "root 644" ]] || fail "$file"
    done
    [[ $(readlink -f /lib/systemd/system/mcp-launch.service) == /usr/lib/systemd/system/mcp-launch.service ]] || fail "unit"
    [[ $(getent passwd mcp-launch | cut -d : -f 6) == /var/lib/mcp-launch ]] || fail "the user of the service"
    # shellcheck disable=SC1091 # it is in that Debian
    bash -c '. /usr/share/bash-completion/bash_completion; _completion_loader mcp-launch; complete -p mcp-launch' \
        >/dev/null || fail "the completion of bash"
}

# removed_while_it_runs COMMAND…: it serves, replaces a dead server, and stops as ever.
removed_while_it_runs() {
    local main
    printf 'APP_MODULE=hello:app\n' >>"$SETTINGS"
    start
    "$@" >/tmp/removal 2>&1 || fail "$*: $(cat /tmp/removal)"
    [[ ! -e /usr/bin/mcp-launch ]] || fail "the program is still there"
    get >/dev/null || fail "no answer after the removal"
    main=$(main_process)
    kill -KILL "$main"
    wait_until "another server" another_main_process "$main"
    wait_until "its answer" get
    kill -TERM "$LAUNCHER"
    wait_until "the stop" is_gone "$LAUNCHER"
    wait "$LAUNCHER" || fail "it ended with status $?"
    LAUNCHER=
}

test_deb() {
    dpkg --install /given/package.deb >/tmp/said 2>&1 || fail "installation: $(cat /tmp/said)"
    check_installed /usr/share/zsh/vendor-completions/_mcp-launch /usr/share/doc/mcp-launch/copyright
    [[ $(dpkg --verify mcp-launch) == '' ]] || fail "$(dpkg --verify mcp-launch)"
    removed_while_it_runs dpkg --remove mcp-launch
    # What an administrator has written stays until the package is purged, through another installation too.
    grep -q hello:app "$SETTINGS" || fail "the removal lost the settings"
    dpkg --force-confold --install /given/package.deb >/tmp/said 2>&1 || fail "another one: $(cat /tmp/said)"
    grep -q hello:app "$SETTINGS" || fail "another installation lost the settings"
    dpkg --purge mcp-launch >/tmp/said 2>&1 || fail "purge: $(cat /tmp/said)"
}

# Debian's rpm knows none of the packages here, which does not matter: ours needs none.
test_rpm() {
    local rpm=/given/package.rpm
    [[ $(rpm --query --package --requires "$rpm" | grep -vE '^(rpmlib|/bin/sh|config)') == '' ]] || fail "it needs something"
    rpm --install --nodeps "$rpm" >/tmp/said 2>&1 || fail "installation: $(cat /tmp/said)"
    check_installed /usr/share/zsh/site-functions/_mcp-launch /usr/share/licenses/mcp-launch/LICENSE
    rpm --verify --nodeps mcp-launch || fail "the files differ from those of the package"
    removed_while_it_runs rpm --erase mcp-launch
    # rpm keeps a changed file under another name.
    grep -q hello:app "$SETTINGS.rpmsave" || fail "the removal lost the settings"
    rm "$SETTINGS.rpmsave"
}

main() {
    local package
    rm -rf /var/lib/rpm/*
    for package in deb rpm; do
        files >/tmp/before
        "test_$package"
        files >/tmp/after
        diff /tmp/before /tmp/after >&2 || fail ".$package: files were left or are missing"
    done
}

main
