# shellcheck shell=bash
# Small static programs for scripts/bench and scripts/stress-signals, which source it after scripts/lib.sh.

PROGRAMS=$CACHE/programs

# build_programs NAME…: from NAME.rs beside this file, where they are older than that.
build_programs() {
    local name source
    mkdir -p "$PROGRAMS"
    for name in "$@"; do
        source=$ROOT/scripts/bench.d/$name.rs
        [[ $PROGRAMS/$name -nt $source ]] && continue
        # Another build of it may be running: each makes a file of its own.
        rustc --edition 2024 -C opt-level=3 -C panic=abort -C lto=fat -C strip=symbols \
            -C target-feature=+crt-static -o "$PROGRAMS/$name.$$" "$source"
        mv "$PROGRAMS/$name.$$" "$PROGRAMS/$name"
    done
}
