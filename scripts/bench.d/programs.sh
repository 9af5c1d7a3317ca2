# shellcheck shell=bash
# Small static programs for scripts/bench and scripts/stress-signals, which source this after scripts/lib.sh.

PROGRAMS=$CACHE/programs

# build_programs NAME…: builds them from NAME.rs in this directory if they are out of date.
build_programs() {
    local name source
    mkdir -p "$PROGRAMS"
    for name in "$@"; do
        source=$ROOT/scripts/bench.d/$name.rs
        [[ $PROGRAMS/$name -nt $source ]] && continue
        # Another build may be running, so each writes to its own file.
        rustc --edition 2024 -C opt-level=3 -C panic=abort -C lto=fat -C strip=symbols \
            -C target-feature=+crt-static -o "$PROGRAMS/$name.$$" "$source"
        mv "$PROGRAMS/$name.$$" "$PROGRAMS/$name"
    done
}
