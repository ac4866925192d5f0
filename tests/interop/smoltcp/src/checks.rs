//! What every guest has to show, in its order.

use sha2::{Digest, Sha256};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{icmp, udp};
use smoltcp::wire::{DnsQueryType, Icmpv4Packet, Icmpv4Repr, IpAddress, Ipv4Address};

use crate::dhcp::{self, Lease};
use crate::dns;
use crate::guest::Guest;
use crate::tunnel::Failure;

const HTTP_PORT: u16 = 80;
const ECHO_PORT: u16 = 7;
const IDENT: u16 = 0x4145;
const ECHOED: &[u8] = b"echoed-over-udp";
const HALF_CLOSE_BYTES: usize = 20000;

/// Tries everything once; how many checks failed.
pub fn all(guest: &mut Guest, web: Ipv4Address) -> usize {
    let lease = match dhcp::configured(guest) {
        Ok(lease) => lease,
        Err(error) => {
            println!("AERO-CHECK lease failed {error}");
            return 1;
        }
    };
    println!("AERO-CHECK lease ok {}", lease.seen);
    let mut failed = 0;
    let mut file = Vec::new();
    let mut check = |name: &str, seen: Result<String, Failure>| match seen {
        Ok(seen) => println!("AERO-CHECK {name} ok {seen}"),
        Err(error) => {
            failed += 1;
            println!("AERO-CHECK {name} failed {error}");
        }
    };
    check("ping", ping(guest, lease.router));
    check("dns-udp", dns::over_udp(guest, lease.dns, "web.example.test", DnsQueryType::A));
    check("dns-tcp", dns::over_tcp(guest, lease.dns, "big.example.test", dns::TXT));
    check("http-by-name", get_by_name(guest, &lease, "web.example.test", "/hello"));
    check("download", download(guest, web, &mut file));
    check("upload", upload(guest, web, &file));
    check("half-close", half_close(guest, web));
    check("udp-echo", udp_echo(guest, web));
    check("renewal", dhcp::renewed(guest, &lease).map(|lease| lease.seen));
    failed
}

fn ping(guest: &mut Guest, gateway: Ipv4Address) -> Result<String, Failure> {
    let handle = guest.icmp_socket(IDENT)?;
    let checksums = ChecksumCapabilities::default();
    let request = Icmpv4Repr::EchoRequest { ident: IDENT, seq_no: 1, data: ECHOED };
    let answer = Icmpv4Repr::EchoReply { ident: IDENT, seq_no: 1, data: ECHOED };
    let send = |guest: &mut Guest| {
        let socket = guest.sockets.get_mut::<icmp::Socket>(handle);
        let bytes = socket.send(request.buffer_len(), IpAddress::Ipv4(gateway))?;
        request.emit(&mut Icmpv4Packet::new_unchecked(bytes), &checksums);
        Ok(())
    };
    guest.ask(send, |guest| {
        let socket = guest.sockets.get_mut::<icmp::Socket>(handle);
        if !socket.can_recv() {
            return Ok(None);
        }
        let (bytes, _) = socket.recv()?;
        let packet = Icmpv4Packet::new_checked(bytes)?;
        Ok((Icmpv4Repr::parse(&packet, &checksums)? == answer).then_some(()))
    })?;
    Ok("1 packets received".into())
}

/// One HTTP/1.0 exchange; the body of an answer 200.
fn http(guest: &mut Guest, server: Ipv4Address, head: &str, body: &[u8]) -> Result<Vec<u8>, Failure> {
    let handle = guest.connect(server, HTTP_PORT)?;
    let request = [format!("{head}\r\n\r\n").as_bytes(), body].concat();
    let mut reply = guest.converse(handle, &request, false)?;
    let end = reply.windows(4).position(|window| window == b"\r\n\r\n").ok_or("no end of the head")?;
    if !reply.starts_with(b"HTTP/1.1 200 ") {
        return Err(String::from_utf8_lossy(&reply[..end]).into());
    }
    Ok(reply.split_off(end + 4))
}

fn line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().into()
}

fn get_by_name(guest: &mut Guest, lease: &Lease, name: &str, path: &str) -> Result<String, Failure> {
    let address = dns::resolve(guest, lease.dns, name)?;
    Ok(line(&http(guest, address, &format!("GET {path} HTTP/1.0\r\nHost: {name}"), b"")?))
}

fn download(guest: &mut Guest, web: Ipv4Address, file: &mut Vec<u8>) -> Result<String, Failure> {
    *file = http(guest, web, "GET /16MiB HTTP/1.0", b"")?;
    Ok(Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect())
}

fn upload(guest: &mut Guest, web: Ipv4Address, file: &[u8]) -> Result<String, Failure> {
    let head = format!("POST /upload HTTP/1.0\r\nContent-Length: {}", file.len());
    Ok(line(&http(guest, web, &head, file)?))
}

/// Bytes, then FIN: the echo has to come back whole, and something behind it.
fn half_close(guest: &mut Guest, web: Ipv4Address) -> Result<String, Failure> {
    let sent: Vec<u8> = (0..HALF_CLOSE_BYTES).map(|index| (index * 31 + index / 251) as u8).collect();
    let handle = guest.connect(web, ECHO_PORT)?;
    let reply = guest.converse(handle, &sent, true)?;
    let intact = sent.iter().zip(&reply).filter(|(sent, came)| sent == came).count();
    let rest = line(reply.get(sent.len()..).unwrap_or_default());
    Ok(format!("{rest} intact {intact} of {}", sent.len()))
}

fn udp_echo(guest: &mut Guest, web: Ipv4Address) -> Result<String, Failure> {
    let handle = guest.udp_socket()?;
    let send = |guest: &mut Guest| {
        let socket = guest.sockets.get_mut::<udp::Socket>(handle);
        Ok(socket.send_slice(ECHOED, (IpAddress::Ipv4(web), ECHO_PORT))?)
    };
    guest.ask(send, |guest| {
        let socket = guest.sockets.get_mut::<udp::Socket>(handle);
        Ok(if socket.can_recv() { Some(line(socket.recv()?.0)) } else { None })
    })
}
