//! Settings of an interface that the packet path needs: VLAN offloads that hide tags, and taking in every frame.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `ETHTOOL_GFLAGS` and `ETHTOOL_SFLAGS` (linux/ethtool.h).
const GET_FLAGS: u32 = 0x25;
const SET_FLAGS: u32 = 0x26;
/// `ETH_FLAG_TXVLAN`: tags are put on by the NIC.
const TX_VLAN: u32 = 1 << 7;
/// `ETH_FLAG_RXVLAN`: tags are taken off by the NIC and travel beside the packet.
const RX_VLAN: u32 = 1 << 8;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    cmd: u32,
    data: u32,
}

/// What became of the receive offload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VlanOffload {
    /// It is off: tags stand in the packets.
    Off,
    /// The driver keeps it on: XDP would see tagged packets as untagged.
    StuckOn,
    /// The driver knows no such switch.
    Unknown,
}

/// Turns the receive VLAN offload of an interface off and reads it back.
#[must_use]
pub fn rx_vlan_off(interface: &str) -> VlanOffload {
    let Ok(flags) = ethtool(interface, GET_FLAGS, 0) else {
        return VlanOffload::Unknown;
    };
    if flags & RX_VLAN == 0 {
        return VlanOffload::Off;
    }
    // The read-back below is the answer; an error here shows there.
    let _ = ethtool(interface, SET_FLAGS, flags & !RX_VLAN);
    rx_vlan(interface)
}

/// Reads the receive VLAN offload of an interface.
#[must_use]
pub fn rx_vlan(interface: &str) -> VlanOffload {
    match ethtool(interface, GET_FLAGS, 0) {
        Ok(flags) if flags & RX_VLAN == 0 => VlanOffload::Off,
        Ok(_) => VlanOffload::StuckOn,
        Err(_) => VlanOffload::Unknown,
    }
}

/// True if the interface leaves tagging of sent packets to its hardware.
#[must_use]
pub fn tx_vlan(interface: &str) -> bool {
    ethtool(interface, GET_FLAGS, 0).is_ok_and(|flags| flags & TX_VLAN != 0)
}

/// Makes a port of a pair take in every frame: the guarded host's are not addressed to it, and a NIC filters by address.
/// The setting outlives the agent, as the programs do.
///
/// # Errors
/// If the interface is not there, or its flags cannot be set.
pub fn take_all_frames(interface: &str) -> io::Result<()> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let mut request = request_for(interface)?;
    // SAFETY: the request lives through the call and its name ends in a zero byte; this command fills the flags.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the command above has written the flags.
    unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_PROMISC as libc::c_short };
    // SAFETY: as for the first command; this one reads the flags.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A request about an interface, by name.
fn request_for(interface: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is plain old data of integers and pointers; all zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed() as libc::c_char;
    }
    Ok(request)
}

fn ethtool(interface: &str, cmd: u32, data: u32) -> io::Result<u32> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let mut value = Value { cmd, data };
    let mut request = request_for(interface)?;
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request lives through the call, its name ends in a zero byte (checked above), and its data points at
    // an ethtool_value, which is what these two commands read and write.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(value.data)
    }
}

#[cfg(test)]
mod tests {
    use super::{VlanOffload, rx_vlan};

    #[test]
    fn an_interface_that_is_not_there_is_unknown() {
        assert_eq!(rx_vlan("nosuchif0"), VlanOffload::Unknown);
        assert_eq!(rx_vlan("a_name_that_is_far_too_long"), VlanOffload::Unknown);
    }
}
