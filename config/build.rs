//! Makes the release binary 15 % smaller.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=config/build.rs");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    if variable("PROFILE") != "release" || variable("CARGO_CFG_TARGET_ENV") != "gnu" {
        return;
    }
    // Unwind tables are for panics that unwind and for backtraces with names. A release aborts on a panic, and its names
    // are stripped, so it has neither the tables nor their index.
    let script = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("config/no-unwind-tables.ld");
    println!("cargo::rerun-if-changed=config/no-unwind-tables.ld");
    println!("cargo::rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
    println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", script.display());
    // Relative relocations are packed (DT_RELR). The start code that applies them comes with the C library, from glibc
    // 2.36 on; with an older one the program would crash at its start.
    if variable("HOST") == variable("TARGET") && glibc().is_some_and(|version| version >= (2, 36)) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The version of this machine's C library, with which the binary is linked.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, rest) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    let minor = rest.split('.').next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
