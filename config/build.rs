//! Makes the release binary smaller, by 5 % altogether.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=config/build.rs");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    if variable("PROFILE") != "release" || variable("CARGO_CFG_TARGET_ENV") != "gnu" {
        return;
    }
    // The index of the unwind tables is for panics that unwind and for backtraces with names. A release aborts on a
    // panic, and its names are stripped.
    println!("cargo::rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
    // Relative relocations are packed (DT_RELR). The start code that applies them comes with the C library, from glibc
    // 2.36 on; with an older one the program would crash at its start.
    if variable("HOST") == variable("TARGET") && glibc().is_some_and(|version| version >= (2, 36)) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The version of this machine's C library, which the binary is linked with.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, rest) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    let minor = rest.split('.').next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
