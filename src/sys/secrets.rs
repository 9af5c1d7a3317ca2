//! Restricting what other processes of the same user can learn about this one.

use std::ffi::CStr;

/// Prevents processes of the same user from reading our memory, which contains a private key: with `ptrace`, from
/// `/proc/PID/mem`, or from a core file. Programs that we execute are not affected.
pub fn hide_memory() {
    // If the kernel refuses this, there is no other way.
    let _ = nix::sys::prctl::set_dumpable(false);
}

unsafe extern "C" {
    static environ: *const *mut libc::c_char;
}

/// Overwrites the value of a variable where the kernel shows it (`/proc/PID/environ`), so that it is empty from now on.
/// Call it while the program has a single thread.
pub fn blank_variable(name: &str) {
    // SAFETY: the array ends with a null pointer and each string with a NUL; they are in writable memory of ours, and
    // no other thread reads or writes the environment.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let length = CStr::from_ptr(*entry).count_bytes();
            let text = std::slice::from_raw_parts_mut((*entry).cast::<u8>(), length);
            if let Some(b"=") = text.strip_prefix(name.as_bytes()).and_then(|rest| rest.get(..1)) {
                text[name.len() + 1..].fill(0);
            }
            entry = entry.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_not_there_changes_nothing() {
        let before: Vec<_> = std::env::vars_os().collect();
        blank_variable("MCP_LAUNCH_NO_SUCH_VARIABLE");
        blank_variable("PAT");
        assert_eq!(std::env::vars_os().collect::<Vec<_>>(), before);
    }
}
