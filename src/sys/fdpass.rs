//! Unix sockets that carry descriptors (`SCM_RIGHTS`, unix(7)) and tell who is at the other end.
#![expect(unsafe_code, reason = "a truncated control message can only be cleaned up on the raw call")]

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, getsockopt, sendmsg, shutdown, socketpair,
    sockopt,
};

use super::user::{Gid, Uid};

/// Most descriptors that one message may bring.
pub const MOST: usize = 14;

/// Bytes of a control message's header (`struct cmsghdr`: size, level, type), in the kernel's own layout.
const HEADER: usize = size_of::<usize>() + 2 * size_of::<i32>();
/// Room for one control message with [`MOST`] descriptors.
const CONTROL: u16 = 72;

/// What travels on a socket pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes without boundaries (`SOCK_STREAM`).
    Stream,
    /// Whole messages, in order (`SOCK_SEQPACKET`).
    Messages,
}

/// A connected pair of unix sockets, blocking, closed on exec.
///
/// # Errors
/// The process or the system is out of descriptors.
pub fn pair(kind: Kind) -> io::Result<(OwnedFd, OwnedFd)> {
    let kind = match kind {
        Kind::Stream => SockType::Stream,
        Kind::Messages => SockType::SeqPacket,
    };
    Ok(socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends bytes with descriptors attached to the first of them and says how many bytes left. Never raises `SIGPIPE`.
///
/// On a stream, the descriptors have gone with the first byte: what is left over is sent without them. On a
/// non-blocking socket `WouldBlock` means that nothing left, neither bytes nor descriptors.
///
/// # Errors
/// The peer is gone, or the socket would block. `bytes` must not be empty, since descriptors need a byte to travel
/// with.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    send_with(socket, bytes, descriptors, MsgFlags::empty())
}

/// As [`send`], but never waits, whatever the socket's mode.
///
/// # Errors
/// As [`send`]; `WouldBlock` when nothing could leave.
pub fn send_at_once(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    send_with(socket, bytes, descriptors, MsgFlags::MSG_DONTWAIT)
}

fn send_with(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>], flags: MsgFlags) -> io::Result<usize> {
    if bytes.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "descriptors need a byte to travel with"));
    }
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let socket = socket.as_fd().as_raw_fd();
    Ok(sendmsg::<()>(socket, &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL | flags, None)?)
}

/// As [`send`] without descriptors, but never waits, whatever the socket's mode.
///
/// # Errors
/// `WouldBlock` when nothing could leave; otherwise the peer is gone.
pub fn send_now(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    Ok(nix::sys::socket::send(socket.as_fd().as_raw_fd(), bytes, flags)?)
}

/// Takes bytes that are there, and drops descriptors that come along; never waits, whatever the socket's mode.
///
/// # Errors
/// `WouldBlock` when there is nothing; otherwise what the socket reports.
pub fn receive_now(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(nix::sys::socket::recv(socket.as_fd().as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?)
}

/// From now on the other end can send nothing more; what it has sent can still be received.
///
/// # Errors
/// Not a connected socket.
pub fn close_door(socket: impl AsFd) -> io::Result<()> {
    Ok(shutdown(socket.as_fd().as_raw_fd(), Shutdown::Both)?)
}

/// As [`close_door`], and what this end sends still arrives.
///
/// # Errors
/// Not a connected socket.
pub fn close_ear(socket: impl AsFd) -> io::Result<()> {
    Ok(shutdown(socket.as_fd().as_raw_fd(), Shutdown::Read)?)
}

/// Whether something waits to be received, which it still does afterwards. Never waits.
///
/// # Errors
/// What the socket reports.
pub fn has_word(socket: impl AsFd) -> io::Result<bool> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK;
    match nix::sys::socket::recv(socket.as_fd().as_raw_fd(), &mut [0], flags) {
        Ok(size) => Ok(size > 0),
        Err(Errno::EAGAIN) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// What one receive brought.
#[derive(Debug)]
pub struct Message {
    /// Bytes placed in the buffer; 0 when the peer has closed.
    pub size: usize,
    /// Descriptors that came along, closed on exec.
    pub descriptors: Vec<OwnedFd>,
    /// A message was longer than the buffer and lost its end (never on a stream).
    pub cut: bool,
}

/// Receives bytes and at most `most` descriptors (no more than [`MOST`]).
///
/// # Errors
/// `InvalidData` when the peer sent more descriptors than `most` or than this process can hold; those that arrived
/// are closed. Otherwise what the socket reports, `WouldBlock` among it.
pub fn receive(socket: impl AsFd, buffer: &mut [u8], most: usize) -> io::Result<Message> {
    receive_with(socket, buffer, most, 0)
}

/// As [`receive`], but never waits, whatever the socket's mode.
///
/// # Errors
/// As [`receive`]; `WouldBlock` when there is nothing.
pub fn receive_at_once(socket: impl AsFd, buffer: &mut [u8], most: usize) -> io::Result<Message> {
    receive_with(socket, buffer, most, libc::MSG_DONTWAIT)
}

fn receive_with(socket: impl AsFd, buffer: &mut [u8], most: usize, flags: i32) -> io::Result<Message> {
    let mut control = [0_u8; CONTROL as usize];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: an all-zero `msghdr` is valid. Its pointers are set to `part`, which describes `buffer`, and to
    // `control`, with their true lengths; all three outlive the call, and the kernel writes nothing else.
    let (size, flags) = unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = CONTROL.into();
        let size = libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC | flags);
        (size, header.msg_flags)
    };
    let size = usize::try_from(size).map_err(|_| io::Error::last_os_error())?;
    let descriptors = owned(&control);
    if flags & libc::MSG_CTRUNC != 0 || descriptors.len() > most {
        let text = format!("the peer sent more than {most} descriptors, or more than this process can hold");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(Message { size, descriptors, cut: flags & libc::MSG_TRUNC != 0 })
}

/// Takes the descriptors out of control messages. The buffer was zero before the kernel wrote to it, so that a
/// length of zero ends the list.
fn owned(mut control: &[u8]) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    while let Some((length, level, kind)) = header(control) {
        let data = control.get(HEADER..length).unwrap_or_default();
        if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            let numbers = data.chunks_exact(size_of::<RawFd>()).filter_map(|bytes| bytes.try_into().ok());
            for number in numbers.map(RawFd::from_ne_bytes) {
                // SAFETY: the kernel has just installed this descriptor for us, and this is its only owner.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
        control = control.get(length.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
    }
    descriptors
}

/// Length, level and type of the control message at the beginning of `control`.
fn header(control: &[u8]) -> Option<(usize, i32, i32)> {
    let (length, rest) = control.split_first_chunk()?;
    let (level, rest) = rest.split_first_chunk()?;
    let (kind, _) = rest.split_first_chunk()?;
    let length = usize::from_ne_bytes(*length);
    (HEADER..=control.len()).contains(&length).then(|| (length, i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind)))
}

/// Who connected, as the kernel noted it then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id at the time of the connection; may since belong to another process.
    pub pid: i32,
    /// Effective user.
    pub uid: Uid,
    /// Effective group.
    pub gid: Gid,
}

/// The process at the other end (`SO_PEERCRED`).
///
/// # Errors
/// Not a connected unix socket.
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let found = getsockopt(&socket, sockopt::PeerCredentials)?;
    Ok(Peer { pid: found.pid(), uid: Uid::from_raw(found.uid()), gid: Gid::from_raw(found.gid()) })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    use super::*;

    #[test]
    fn bytes_and_descriptors_arrive_together_and_close_on_exec() {
        let (left, right) = pair(Kind::Stream).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        assert_eq!(send(&left, b"order", &[writer.as_fd()]).unwrap(), 5);
        drop(writer);
        let mut buffer = [0; 2];
        let message = receive(&right, &mut buffer, 1).unwrap();
        assert_eq!((message.size, message.cut, &buffer), (2, false, b"or"));
        let mut passed = message.descriptors;
        let flags = fcntl(&passed[0], FcntlArg::F_GETFD).unwrap();
        assert!(FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC));
        File::from(passed.remove(0)).write_all(b"through").unwrap();
        assert_eq!(std::io::read_to_string(reader).unwrap(), "through");
        assert!(receive(&right, &mut [0; 9], 1).unwrap().descriptors.is_empty());
    }

    /// Counts writers of the pipe: it ends only when nobody holds one.
    fn all_closed(mut reader: impl Read) -> bool {
        reader.read(&mut [0]).is_ok_and(|size| size == 0)
    }

    #[test]
    fn too_many_descriptors_are_an_error_and_all_are_closed() {
        for (count, most) in [(3, 2), (8, 7), (MOST + 1, MOST), (200, MOST)] {
            let (left, right) = pair(Kind::Messages).unwrap();
            let (reader, writer) = std::io::pipe().unwrap();
            send(&left, b"x", &vec![writer.as_fd(); count]).unwrap();
            drop(writer);
            assert_eq!(receive(&right, &mut [0; 1], most).unwrap_err().kind(), io::ErrorKind::InvalidData);
            assert!(all_closed(reader), "{count} sent, {most} allowed");
        }
    }

    #[test]
    fn as_many_as_allowed_arrive() {
        let (left, right) = pair(Kind::Messages).unwrap();
        let file = File::open("/dev/null").unwrap();
        send(&left, b"x", &[file.as_fd(); MOST]).unwrap();
        assert_eq!(receive(&right, &mut [0; 1], MOST).unwrap().descriptors.len(), MOST);
    }

    #[test]
    fn a_message_that_is_too_long_says_so_and_a_closed_peer_reads_as_zero() {
        let (left, right) = pair(Kind::Messages).unwrap();
        send(&left, b"0123456789", &[]).unwrap();
        assert!(receive(&right, &mut [0; 4], 0).unwrap().cut);
        drop(left);
        assert_eq!(receive(&right, &mut [0; 4], 0).unwrap().size, 0);
        assert_eq!(send(&right, b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_closed_ear_takes_nothing_more_and_keeps_what_it_has_and_the_other_way_stays() {
        for kind in [Kind::Stream, Kind::Messages] {
            let (left, right) = pair(kind).unwrap();
            assert!(!has_word(&right).unwrap());
            send(&left, b"x", &[]).unwrap();
            close_ear(&right).unwrap();
            assert_eq!(send(&left, b"y", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
            assert!(has_word(&right).unwrap());
            assert_eq!(receive(&right, &mut [0; 9], 0).unwrap().size, 1);
            assert!(!has_word(&right).unwrap());
            send(&right, b"z", &[]).unwrap();
            assert_eq!(receive(&left, &mut [0; 9], 0).unwrap().size, 1);
        }
    }

    #[test]
    fn a_peer_that_closes_with_something_unread_resets_and_one_that_has_read_everything_does_not() {
        for unread in [true, false] {
            let (left, right) = pair(Kind::Stream).unwrap();
            send(&left, b"order", &[]).unwrap();
            receive(&right, &mut [0; 5][..if unread { 4 } else { 5 }], 0).unwrap();
            drop(right);
            let end = receive(&left, &mut [0; 9], 0).map(|message| message.size).map_err(|error| error.kind());
            assert_eq!(end, if unread { Err(io::ErrorKind::ConnectionReset) } else { Ok(0) });
        }
    }

    #[test]
    fn the_peer_is_known() {
        let (left, _right) = pair(Kind::Stream).unwrap();
        let peer = peer(&left).unwrap();
        assert_eq!((peer.pid, peer.uid), (i32::try_from(std::process::id()).unwrap(), Uid::effective()));
    }
}
