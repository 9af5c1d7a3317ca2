//! Steering new connections among the sockets that share a port (`SO_REUSEPORT`).
//!
//! A classic BPF program on the group chooses the member by number. Members are numbered in the order in which they
//! began to listen; when one leaves, the last one takes its number; a number out of range falls back to choosing by
//! hash among all members (`net/core/sock_reuseport.c`). This needs no privilege.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// Sends every new connection to the member with that number. Any socket of the group can be used to set it.
///
/// # Errors
/// The kernel's error.
pub fn steer(socket: impl AsFd, member: usize) -> nix::Result<()> {
    let member = u32::try_from(member).map_err(|_| Errno::EINVAL)?;
    attach(&socket, &mut [libc::sock_filter { code: RETURN_CONSTANT, jt: 0, jf: 0, k: member }])
}

/// Spreads new connections over `count` members from number `first` on, at random.
///
/// # Errors
/// The kernel's error.
pub fn spread(socket: impl AsFd, first: usize, count: usize) -> nix::Result<()> {
    let number = |number: usize| u32::try_from(number).map_err(|_| Errno::EINVAL);
    let step = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let mut program = [
        step(LOAD_WORD_ABSOLUTE, RANDOM),
        step(MODULO_CONSTANT, number(count.max(1))?),
        step(ADD_CONSTANT, number(first)?),
        step(RETURN_ACCUMULATOR, 0),
    ];
    attach(&socket, &mut program)
}

/// Distributes new connections over two members at random, each given by its number and its share.
///
/// # Errors
/// The kernel's error.
pub fn share(socket: impl AsFd, [first, second]: [(usize, u32); 2]) -> nix::Result<()> {
    let number = |number: usize| u32::try_from(number).map_err(|_| Errno::EINVAL);
    let step = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let whole = first.1.saturating_add(second.1).max(1);
    let mut program = [
        step(LOAD_WORD_ABSOLUTE, RANDOM),
        step(MODULO_CONSTANT, whole),
        // Below the first one's share the next instruction is skipped.
        libc::sock_filter { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: first.1 },
        step(RETURN_CONSTANT, number(second.0)?),
        step(RETURN_CONSTANT, number(first.0)?),
    ];
    attach(&socket, &mut program)
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

fn attach(socket: &impl AsFd, filter: &mut [libc::sock_filter]) -> nix::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| Errno::EINVAL)?,
        filter: filter.as_mut_ptr(),
    };
    set(socket, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// Stops steering: the kernel chooses by hash again.
///
/// # Errors
/// The kernel's error.
pub fn unsteer(socket: impl AsFd) -> nix::Result<()> {
    set(&socket, libc::SO_DETACH_REUSEPORT_BPF, &0)
}

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
