//! What smoltcp's own DHCP client gets, and its renewal.

use std::time::Duration;

use smoltcp::socket::dhcpv4;
use smoltcp::wire::{DhcpPacket, IpCidr, Ipv4Address, Ipv4Cidr};

use crate::guest::Guest;
use crate::tunnel::Failure;

const INTERFACE_MTU: u8 = 26;
const LEASE_TIME: u8 = 51;
const RENEWAL_TIME: u8 = 58;

pub struct Lease {
    pub router: Ipv4Address,
    pub dns: Ipv4Address,
    pub renew_after: Duration,
    pub seen: String,
}

/// Waits until the client is configured (again), and applies that.
pub fn configured(guest: &mut Guest) -> Result<Lease, Failure> {
    let (address, lease) =
        guest.wait(|guest| match guest.sockets.get_mut::<dhcpv4::Socket>(guest.dhcp).poll() {
            Some(dhcpv4::Event::Configured(config)) => Ok(Some((config.address, lease_of(&config)?))),
            _ => Ok(None),
        })?;
    apply(guest, address, lease.router)?;
    Ok(lease)
}

/// Half of the lease passes at once: the client asks its server for more (RFC 2131 section 4.4.5).
pub fn renewed(guest: &mut Guest, lease: &Lease) -> Result<Lease, Failure> {
    guest.skip(lease.renew_after);
    configured(guest)
}

fn apply(guest: &mut Guest, address: Ipv4Cidr, router: Ipv4Address) -> Result<(), Failure> {
    let mut full = false;
    guest.interface.update_ip_addrs(|addresses| {
        addresses.clear();
        full = addresses.push(IpCidr::Ipv4(address)).is_err();
    });
    if full {
        return Err("no room for an address".into());
    }
    guest.interface.routes_mut().add_default_ipv4_route(router)?;
    Ok(())
}

fn lease_of(config: &dhcpv4::Config) -> Result<Lease, Failure> {
    let packet = config.packet.as_ref().ok_or("no packet was kept")?;
    let router = config.router.ok_or("no router")?;
    let [dns] = config.dns_servers[..] else {
        return Err(format!("DNS servers: {:?}", config.dns_servers).into());
    };
    let seconds = number(packet, LEASE_TIME)?;
    let mtu = number(packet, INTERFACE_MTU)?;
    let server = config.server.identifier;
    let seen =
        format!("{} router {router} dns {dns} lease {seconds} server {server} mtu {mtu}", config.address);
    Ok(Lease { router, dns, renew_after: Duration::from_secs(number(packet, RENEWAL_TIME)?), seen })
}

fn number(packet: &DhcpPacket<&[u8]>, kind: u8) -> Result<u64, Failure> {
    let option = packet.options().find(|option| option.kind == kind).ok_or(format!("no option {kind}"))?;
    Ok(option.data.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}
