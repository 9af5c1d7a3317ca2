//! Receiving descriptors over a Unix socket (`unix(7)`, `SCM_RIGHTS`).

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};

/// Receives one short datagram, without blocking, and the descriptor that comes with it, if any.
///
/// # Errors
/// The kernel's error: `EAGAIN` if there is none.
pub fn receive(socket: impl AsFd) -> nix::Result<Option<OwnedFd>> {
    let mut text = [0; 16];
    let mut parts = [IoSliceMut::new(&mut text)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut received = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            for descriptor in descriptors {
                // SAFETY: the kernel has just opened it for us, and nobody else knows its number. Further ones are
                // closed with their owner.
                received.get_or_insert(unsafe { OwnedFd::from_raw_fd(descriptor) });
            }
        }
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use nix::sys::socket::{AddressFamily, ControlMessage, SockFlag, SockType, sendmsg, socketpair};
    use std::io::{IoSlice, Read, Write};

    #[test]
    fn a_descriptor_comes_with_a_datagram_or_does_not() {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC).unwrap();
        assert_eq!(receive(&ours).unwrap_err(), Errno::EAGAIN);
        let (mut reader, writer) = std::io::pipe().unwrap();
        let parts = [IoSlice::new(b"+")];
        let descriptors = [writer.as_raw_fd()];
        for control in [&[ControlMessage::ScmRights(&descriptors)][..], &[]] {
            sendmsg::<UnixAddr>(theirs.as_raw_fd(), &parts, control, MsgFlags::empty(), None).unwrap();
        }
        let copy = receive(&ours).unwrap().expect("the first has one");
        assert!(receive(&ours).unwrap().is_none(), "the second has none");
        drop(writer);
        std::fs::File::from(copy).write_all(b"through the copy").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through the copy");
    }
}
