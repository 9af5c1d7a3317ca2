//! What other processes of the same user can learn of this one.

use std::ffi::CStr;

/// Keeps processes of the same user from reading our memory, in which a private key is: with `ptrace`, from
/// `/proc/PID/mem`, or from a core file. Programs that we execute are as open as ever.
pub fn hide_memory() {
    // A kernel that refuses this has no other way either.
    let _ = nix::sys::prctl::set_dumpable(false);
}

unsafe extern "C" {
    static environ: *const *mut libc::c_char;
}

/// Overwrites the value of a variable where the kernel shows it (`/proc/PID/environ`), so that it is empty from now on.
/// To be called while the program has a single thread.
pub fn blank_variable(name: &str) {
    // SAFETY: the array ends with a null pointer and each string with a NUL; they lie in memory of ours that can be
    // written, and no other thread reads or writes the environment.
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
