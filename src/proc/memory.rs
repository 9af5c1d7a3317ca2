//! The memory use of processes, and which of them the OOM killer chooses first.

use std::fs;

use nix::unistd::{Pid, SysconfVar, sysconf};

use super::file;

/// The memory use of a process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Its proportional set size: a page that several processes share counts in part for each.
    pub pss: u64,
    /// The part that is not file-backed, which a second process of the same kind would need again.
    pub anonymous: u64,
    /// What only this process has written to, and is therefore freed when it ends.
    pub private: u64,
}

impl Footprint {
    /// Reads `/proc/PID/smaps_rollup`, `proc_pid_smaps(5)`, or `/proc/PID/statm` if that is not permitted.
    #[must_use]
    pub fn read(pid: Pid) -> Option<Self> {
        let rollup = file::read_text(format!("/proc/{pid}/smaps_rollup")).ok().and_then(|text| from_rollup(&text));
        rollup.or_else(|| {
            let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|page| u64::try_from(page).ok());
            from_statm(&file::read_text(format!("/proc/{pid}/statm")).ok()?, page.unwrap_or(4096))
        })
    }
}

pub(super) fn from_rollup(text: &str) -> Option<Footprint> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes.saturating_mul(1024))
    };
    let pss = field("Pss")?;
    // Before Linux 5.4 it is not listed separately.
    let anonymous = field("Pss_Anon").map_or(pss, |own| own.saturating_add(field("Pss_Shmem").unwrap_or(0)));
    Some(Footprint { pss, anonymous, private: field("Private_Dirty").unwrap_or(0) })
}

/// The memory that is resident and not shared with a file or another process, from the fields of `proc_pid_statm(5)`.
pub(super) fn from_statm(text: &str, page: u64) -> Option<Footprint> {
    let mut pages = text.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
    let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    let own = resident.saturating_sub(shared).saturating_mul(page);
    Some(Footprint { pss: own, anonymous: own, private: own })
}

/// The kernel's maximum: this process is killed before any other when memory runs out, `proc_pid_oom_score_adj(5)`.
const FIRST: &str = "1000";

/// Makes the kernel kill this process, and those that it starts, before any other when memory runs out.
pub fn offer_to_oom_killer(pid: Pid) {
    if let Err(error) = fs::write(format!("/proc/{pid}/oom_score_adj"), FIRST) {
        tracing::debug!(%pid, %error, "cannot raise its OOM score");
    }
}

/// Undoes that: the process gets our own score. Processes that it has started in the meantime keep the inherited one.
pub fn withdraw_from_oom_killer(pid: Pid) {
    let path = format!("/proc/{pid}/oom_score_adj");
    if file::read_text(&path).is_ok_and(|score| score.trim() == FIRST) {
        let own = file::read_text("/proc/self/oom_score_adj");
        if let Err(error) = own.and_then(|own| fs::write(&path, own.trim())) {
            tracing::debug!(%pid, %error, "cannot reset its OOM score");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    #[test]
    fn the_rollup_is_read() {
        let text = "55e1-7ffe ---p 00000000 00:00 0    [rollup]\nRss:    9000 kB\nPss:    5000 kB\nPss_Dirty:  1 kB\n\
                    Pss_Anon:   3000 kB\nPss_File:   1900 kB\nPss_Shmem:   100 kB\nPrivate_Dirty:  2500 kB\n";
        let expected = Footprint { pss: 5000 * KIB, anonymous: 3100 * KIB, private: 2500 * KIB };
        assert_eq!(from_rollup(text), Some(expected));
        let old_kernel = from_rollup("Pss:  50 kB\nPrivate_Dirty:  20 kB\n").unwrap();
        assert_eq!(old_kernel.anonymous, 50 * KIB);
        assert_eq!(from_rollup(""), None);
    }

    #[test]
    fn without_the_rollup_what_is_not_shared_counts() {
        let own = 60 * 4096;
        let expected = Footprint { pss: own, anonymous: own, private: own };
        assert_eq!(from_statm("900 100 40 10 0 50 0\n", 4096), Some(expected));
        assert_eq!(from_statm("900\n", 4096), None);
    }

    #[test]
    fn memory_that_a_process_fills_is_seen() {
        let before = Footprint::read(nix::unistd::getpid()).unwrap();
        let ballast = vec![1_u8; 32 << 20];
        let after = Footprint::read(nix::unistd::getpid()).unwrap();
        assert!(std::hint::black_box(ballast).iter().all(|byte| *byte == 1));
        for (before, after) in
            [(before.pss, after.pss), (before.anonymous, after.anonymous), (before.private, after.private)]
        {
            assert!(after >= before + (30 << 20), "{before} {after}");
        }
    }

    #[test]
    fn who_was_offered_to_the_oom_killer_is_withdrawn() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        let score = || fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        let before = score();
        offer_to_oom_killer(pid);
        assert_eq!(score().trim(), FIRST);
        withdraw_from_oom_killer(pid);
        assert_eq!(score(), before);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
