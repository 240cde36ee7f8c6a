//! Bringing interfaces up.
//!
//! A sealed build has a loopback and nothing else; a build with network shares the machine's one card.

use std::os::fd::{AsFd, OwnedFd};

use igloo_control::spec::Network;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};

use crate::error::{Step, StepError};
use crate::sys::{
    InterfaceRequest, default_route, interface_flags, interface_ioctl, interface_request, ipv4,
};

const CARD: &str = "eth0";

/// Brings the loopback of this network namespace up. Allocates nothing: a forked child calls it.
///
/// # Errors
/// The request that failed.
pub fn loopback_up() -> Result<(), Errno> {
    up(&socket(AddressFamily::INET, SocketType::DGRAM, None)?, "lo")
}

/// Sets the machine's card up as the host says.
///
/// # Errors
/// The request that failed; `ENODEV` when the machine has no card.
pub fn configure(network: &Network) -> Result<(), StepError> {
    loopback_up().step("bring up", "lo")?;
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).step("open a socket for", CARD)?;
    let mut request = interface_request(CARD);
    request.ifr_ifru.ifru_addr = ipv4(network.address);
    interface_ioctl(socket.as_fd(), InterfaceRequest::SetAddress, &mut request)
        .step("set the address of", CARD)?;
    request.ifr_ifru.ifru_netmask = ipv4(mask(network.prefix_bits));
    interface_ioctl(socket.as_fd(), InterfaceRequest::SetMask, &mut request).step("set the mask of", CARD)?;
    up(&socket, CARD).step("bring up", CARD)?;
    let mut route = default_route(network.gateway);
    interface_ioctl(socket.as_fd(), InterfaceRequest::AddRoute, &mut route).step("add a route by", CARD)
}

fn up(socket: &OwnedFd, name: &str) -> Result<(), Errno> {
    let mut request = interface_request(name);
    interface_ioctl(socket.as_fd(), InterfaceRequest::GetFlags, &mut request)?;
    let flags = interface_flags(&request) | IFF_UP;
    request.ifr_ifru.ifru_flags = flags;
    interface_ioctl(socket.as_fd(), InterfaceRequest::SetFlags, &mut request)
}

/// IFF_UP (linux/if.h).
const IFF_UP: i16 = 1;

fn mask(prefix_bits: u8) -> [u8; 4] {
    let host_bits = 32u32.saturating_sub(prefix_bits.into());
    u32::MAX.checked_shl(host_bits).unwrap_or(0).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks() {
        assert_eq!(mask(0), [0; 4]);
        assert_eq!(mask(24), [255, 255, 255, 0]);
        assert_eq!(mask(30), [255, 255, 255, 252]);
        assert_eq!(mask(32), [255; 4]);
        assert_eq!(mask(200), [255; 4]);
    }
}
