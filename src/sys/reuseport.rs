//! Steering new connections among the sockets that share a port (`SO_REUSEPORT`).
//!
//! A classic BPF program on the group chooses the member by number. Members are numbered in the order in which they
//! began to listen; when one leaves, the last one takes its number; a number out of range falls back to choosing by
//! hash among all members (`net/core/sock_reuseport.c`). This needs no privilege.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// A member of the group by its number, and its share of the new connections.
pub type Share = (u32, u32);

/// Chooses the member for each new connection at random, each by its share. Any socket of the group can be used to set
/// this for the whole group.
///
/// # Errors
/// The kernel's error; EINVAL if all shares are zero, or if there are more members than a program can name.
pub fn route(socket: impl AsFd, shares: &[Share]) -> nix::Result<()> {
    let mut filter = program(shares).ok_or(Errno::EINVAL)?;
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| Errno::EINVAL)?,
        filter: filter.as_mut_ptr(),
    };
    set(&socket, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// Lets the kernel choose by hash again.
///
/// # Errors
/// The kernel's error.
pub fn unroute(socket: impl AsFd) -> nix::Result<()> {
    set(&socket, libc::SO_DETACH_REUSEPORT_BPF, &0)
}

/// The instructions; none if all shares are zero.
fn program(shares: &[Share]) -> Option<Vec<libc::sock_filter>> {
    let step = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let shares: Vec<Share> = shares.iter().copied().filter(|(_, share)| *share > 0).collect();
    let whole = shares.iter().try_fold(0_u32, |sum, (_, share)| sum.checked_add(*share))?;
    let ((first, _), (last, rest)) = (shares.first()?, shares.split_last()?);
    if rest.is_empty() {
        return Some(vec![step(RETURN_CONSTANT, last.0)]);
    }
    let mut program = vec![step(LOAD_WORD_ABSOLUTE, RANDOM), step(MODULO_CONSTANT, whole)];
    if (*first..).zip(&shares).all(|(number, share)| *share == (number, 1)) {
        // Neighbours with equal shares: the number can be computed.
        program.extend([step(ADD_CONSTANT, *first), step(RETURN_ACCUMULATOR, 0)]);
        return Some(program);
    }
    let mut below = 0;
    for (member, share) in rest {
        below += share;
        // If the random number is at or above the total so far, the next instruction is skipped.
        program.push(libc::sock_filter { code: JUMP_IF_AT_LEAST, jt: 1, jf: 0, k: below });
        program.push(step(RETURN_CONSTANT, *member));
    }
    program.push(step(RETURN_CONSTANT, last.0));
    Some(program)
}

// The instructions of classic BPF that are used here (`linux/bpf_common.h`, `linux/filter.h`).
/// `BPF_LD | BPF_W | BPF_ABS`
const LOAD_WORD_ABSOLUTE: u16 = 0x20;
/// `SKF_AD_OFF + SKF_AD_RANDOM`: not a word of the packet but a random number.
const RANDOM: u32 = (-0x1000_i32 + 56).cast_unsigned();
/// `BPF_ALU | BPF_MOD | BPF_K`
const MODULO_CONSTANT: u16 = 0x94;
/// `BPF_ALU | BPF_ADD | BPF_K`
const ADD_CONSTANT: u16 = 0x04;
/// `BPF_JMP | BPF_JGE | BPF_K`
const JUMP_IF_AT_LEAST: u16 = 0x35;
/// `BPF_RET | BPF_A`
const RETURN_ACCUMULATOR: u16 = 0x16;
/// `BPF_RET | BPF_K`
const RETURN_CONSTANT: u16 = 0x06;

fn set<T>(socket: &impl AsFd, option: i32, value: &T) -> nix::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: pointer and length are those of a value that lives through the call; a program's own pointer is to a
    // slice that the caller holds, and the kernel copies what it points to.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(value).cast(),
            length,
        )
    };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a program returns for a random number.
    fn run(program: &[libc::sock_filter], random: u32) -> u32 {
        let (mut accumulator, mut at) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            match step.code {
                LOAD_WORD_ABSOLUTE => accumulator = random,
                MODULO_CONSTANT => accumulator %= step.k,
                ADD_CONSTANT => accumulator += step.k,
                JUMP_IF_AT_LEAST => at += usize::from(if accumulator >= step.k { step.jt } else { step.jf }),
                RETURN_ACCUMULATOR => return accumulator,
                RETURN_CONSTANT => return step.k,
                code => panic!("{code:#x}"),
            }
        }
    }

    #[test]
    fn each_member_gets_its_share() {
        let cases: [&[Share]; 6] = [
            &[(7, 1)],
            &[(2, 1), (3, 1), (4, 1)],
            &[(2, 1), (4, 1)],
            &[(0, 3), (1, 1)],
            &[(5, 2), (1, 1), (3, 4)],
            &[(4, 0), (6, 2)],
        ];
        for shares in cases {
            let program = program(shares).unwrap();
            let whole: u32 = shares.iter().map(|(_, share)| share).sum();
            for (member, share) in shares {
                let chosen = (0..whole).filter(|random| run(&program, *random) == *member).count();
                assert_eq!(chosen, *share as usize, "member {member} of {shares:?}");
            }
        }
    }

    #[test]
    fn without_a_share_there_is_no_program() {
        assert!(program(&[]).is_none() && program(&[(3, 0)]).is_none());
        assert_eq!(route(std::net::TcpListener::bind("127.0.0.1:0").unwrap(), &[]), Err(Errno::EINVAL));
    }
}
