//! Packet sockets (packet(7)): what passes a device, and sending through it.
//!
//! This exists for `verify`, which has to see frames as they are at a device: with the VLAN tag that the kernel takes out
//! of the bytes on receiving, with what is left to a network card (segmentation), and with the kernel's time. Nothing
//! about the device is changed by it, promiscuous mode neither.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockType, recvmsg,
    setsockopt, socket, sockopt,
};

use pve_span_core::engine::nft::Side;
use pve_span_core::model::IfName;
use pve_span_core::verify::identity::Segments;

/// The largest piece that a device hands on, and some.
const LARGEST: usize = 256 * 1024;

/// struct virtio_net_hdr (linux/virtio_net.h) precedes each frame.
const HEADER: usize = 10;
/// The kind of segmentation: none, and a flag that may stand beside each kind.
const GSO_NONE: u8 = 0;
const GSO_ECN: u8 = 0x80;

// linux/if_packet.h
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;

/// What cannot be done with a packet socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It takes CAP_NET_RAW.
    #[error("watching frames needs root")]
    NotRoot,
    /// Anything else.
    #[error("{doing} {device}")]
    Socket {
        /// What was being done.
        doing: &'static str,
        /// The device.
        device: IfName,
        /// What the kernel said.
        source: io::Error,
    },
}

fn failed(doing: &'static str, device: &IfName) -> impl FnOnce(Errno) -> Error {
    move |errno| match errno {
        Errno::EPERM | Errno::EACCES => Error::NotRoot,
        errno => Error::Socket {
            doing,
            device: device.clone(),
            source: errno.into(),
        },
    }
}

/// A frame that passed a device.
#[derive(Debug)]
pub struct Frame<'a> {
    /// From the destination MAC address on, tags in place.
    pub bytes: &'a [u8],
    /// Whether the node received it from the device or sent it through it.
    pub side: Side,
    /// When, in nanoseconds since 1970.
    pub time: u64,
    /// How it is still to be cut, if it is a large piece.
    pub segments: Option<Segments>,
}

/// What a look at a socket brought.
#[derive(Debug)]
pub enum Next<'a> {
    /// A frame.
    Frame(Frame<'a>),
    /// A frame that the kernel could not describe (segments of a kind that virtio has no word for).
    Odd,
    /// Nothing now.
    Empty,
    /// The device is down or has gone.
    Down,
}

/// Sees all that passes a device.
pub struct Capture {
    socket: OwnedFd,
    device: IfName,
}

/// What came with a frame.
struct Received {
    length: usize,
    side: Side,
    time: u64,
    tag: Option<[u8; 4]>,
}

/// Room for a frame.
pub struct Room {
    bytes: Vec<u8>,
    control: Vec<u8>,
    tagged: Vec<u8>,
}

impl Room {
    /// For the largest.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; LARGEST],
            control: nix::cmsg_space!([u32; 5], libc::timespec),
            tagged: Vec::new(),
        }
    }
}

impl Default for Room {
    fn default() -> Self {
        Self::new()
    }
}

impl Capture {
    /// Sees what passes the device from now on; `buffer` bytes of it wait until they are looked at.
    ///
    /// # Errors
    /// Without root, or without the device.
    pub fn open(device: &IfName, buffer: usize) -> Result<Self, Error> {
        let open = || {
            let socket = unbound()?;
            set(&socket, libc::PACKET_AUXDATA)?;
            set(&socket, libc::PACKET_VNET_HDR)?;
            setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
            setsockopt(&socket, sockopt::RcvBufForce, &buffer)?;
            bind(&socket, device, libc::ETH_P_ALL)?;
            Ok(socket)
        };
        let socket = open().map_err(failed("cannot watch", device))?;
        let device = device.clone();
        Ok(Self { socket, device })
    }

    /// The next frame.
    ///
    /// # Errors
    /// The kernel does not hand it out.
    pub fn next<'a>(&self, room: &'a mut Room) -> Result<Next<'a>, Error> {
        let received = match self.receive(room) {
            Ok(received) => received,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Next::Empty),
            Err(Errno::ENETDOWN | Errno::ENXIO) => return Ok(Next::Down),
            Err(Errno::EINVAL) => return Ok(Next::Odd),
            Err(errno) => return Err(failed("cannot watch", &self.device)(errno)),
        };
        let (Some(header), Some(mut bytes)) = (
            room.bytes.get(..HEADER),
            room.bytes.get(HEADER..received.length),
        ) else {
            return Ok(Next::Odd);
        };
        let segments = segments(header);
        if let (Some(tag), Some((macs, rest))) = (received.tag, bytes.split_at_checked(12)) {
            room.tagged.clear();
            room.tagged.extend(macs);
            room.tagged.extend(tag);
            room.tagged.extend(rest);
            bytes = &room.tagged;
        }
        Ok(Next::Frame(Frame {
            bytes,
            side: received.side,
            time: received.time,
            segments,
        }))
    }

    /// Takes a frame into the room.
    fn receive(&self, room: &mut Room) -> nix::Result<Received> {
        let mut parts = [io::IoSliceMut::new(&mut room.bytes)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let control = Some(room.control.as_mut_slice());
        let fd = self.socket.as_raw_fd();
        let message = recvmsg::<LinkAddr>(fd, &mut parts, control, flags)?;
        let kind = message.address.map(|address| address.pkttype());
        let mut received = Received {
            length: message.bytes,
            side: match kind {
                Some(libc::PACKET_OUTGOING) => Side::Egress,
                _ => Side::Ingress,
            },
            time: 0,
            tag: None,
        };
        for part in message.cmsgs()? {
            match part {
                ControlMessageOwned::ScmTimestampns(at) => {
                    let number = |number| u64::try_from(number).unwrap_or(0);
                    received.time = number(at.tv_sec()) * 1_000_000_000 + number(at.tv_nsec());
                }
                ControlMessageOwned::Unknown(part) => received.tag = tag_of(&part.data_bytes),
                _ => {}
            }
        }
        Ok(received)
    }

    /// How many frames there was no room for since the last call.
    pub fn lost(&self) -> u32 {
        // struct tpacket_stats: packets seen, packets dropped.
        let mut stats = [0_u32; 2];
        let mut length: libc::socklen_t = 8;
        let (fd, level) = (self.socket.as_raw_fd(), libc::SOL_PACKET);
        #[allow(unsafe_code)]
        // SAFETY: the pointer and the length (8) are of the live array.
        let result = unsafe {
            let stats = (&raw mut stats).cast();
            libc::getsockopt(fd, level, libc::PACKET_STATISTICS, stats, &raw mut length)
        };
        if result == 0 { stats[1] } else { 0 }
    }

    /// The device.
    pub fn device(&self) -> &IfName {
        &self.device
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends through a device.
pub struct Sender {
    socket: OwnedFd,
    device: IfName,
}

impl Sender {
    /// Opens a socket that receives nothing.
    ///
    /// # Errors
    /// Without root, or without the device.
    pub fn open(device: &IfName) -> Result<Self, Error> {
        let open = || {
            let socket = unbound()?;
            bind(&socket, device, 0)?;
            Ok(socket)
        };
        let socket = open().map_err(failed("cannot send through", device))?;
        let device = device.clone();
        Ok(Self { socket, device })
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The device is down, or does not take it.
    pub fn send(&self, frame: &[u8]) -> Result<(), Error> {
        nix::unistd::write(&self.socket, frame)
            .map(drop)
            .map_err(failed("cannot send through", &self.device))
    }
}

/// A socket without a protocol receives nothing, so nothing gets in from other devices before it is bound.
fn unbound() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Packet, SockType::Raw, flags, None)
}

#[allow(unsafe_code)]
fn bind(socket: &OwnedFd, device: &IfName, protocol: libc::c_int) -> nix::Result<()> {
    let index = nix::net::if_::if_nametoindex(device.as_str())?;
    let length = size_of::<libc::sockaddr_ll>();
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(|_| Errno::EINVAL)?,
        sll_protocol: u16::try_from(protocol).map_err(|_| Errno::EINVAL)?.to_be(),
        sll_ifindex: i32::try_from(index).map_err(|_| Errno::EINVAL)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(length).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the pointer and the length are of one live sockaddr_ll.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    Errno::result(result).map(drop)
}

#[allow(unsafe_code)]
fn set(socket: &OwnedFd, option: libc::c_int) -> nix::Result<()> {
    let on: libc::c_int = 1;
    let (fd, level) = (socket.as_raw_fd(), libc::SOL_PACKET);
    // SAFETY: the pointer and the length (4) are of one live int.
    let result = unsafe { libc::setsockopt(fd, level, option, (&raw const on).cast(), 4) };
    Errno::result(result).map(drop)
}

/// A device's MTU (netdevice(7), `SIOCGIFMTU`).
#[allow(unsafe_code)]
pub fn mtu(device: &IfName) -> Option<usize> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None).ok()?;
    let mut ifr_name = [0; libc::IFNAMSIZ];
    let name = device.as_str().as_bytes();
    if name.len() >= ifr_name.len() {
        return None;
    }
    for (to, from) in ifr_name.iter_mut().zip(name) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_mtu: 0 };
    let mut ifreq = libc::ifreq { ifr_name, ifr_ifru };
    // SAFETY: the descriptor is open, and `ifreq` is a whole struct ifreq with a name that ends with NUL.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &raw mut ifreq) };
    // SAFETY: the kernel has written this member.
    let mtu = unsafe { ifreq.ifr_ifru.ifru_mtu };
    usize::try_from(mtu).ok().filter(|_| result == 0)
}

/// How a piece is still to be cut.
fn segments(header: &[u8]) -> Option<Segments> {
    // flags, kind, hdr_len, gso_size, …
    let kind = header.get(1)? & !GSO_ECN;
    let size = u16::from_ne_bytes(*header.get(4..)?.first_chunk()?);
    (kind != GSO_NONE && size > 0).then_some(Segments(size.into()))
}

/// The tag that the kernel took out: struct tpacket_auxdata is u32 status, len, snaplen; u16 mac, net, vlan_tci, vlan_tpid.
fn tag_of(auxiliary: &[u8]) -> Option<[u8; 4]> {
    let status = u32::from_ne_bytes(*auxiliary.first_chunk()?);
    let u16_at = |at: usize| Some(u16::from_ne_bytes(*auxiliary.get(at..)?.first_chunk()?));
    if status & TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let tpid = if status & TP_STATUS_VLAN_TPID_VALID != 0 {
        u16_at(18)?
    } else {
        0x8100
    };
    let ([a, b], [c, d]) = (tpid.to_be_bytes(), u16_at(16)?.to_be_bytes());
    Some([a, b, c, d])
}
