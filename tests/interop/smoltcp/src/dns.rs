//! Queries over UDP and TCP, and a name's address from smoltcp's own resolver.

use smoltcp::socket::{dns, udp};
use smoltcp::wire::{
    DnsFlags, DnsOpcode, DnsPacket, DnsQueryType, DnsQuestion, DnsRecord, DnsRecordData, DnsRepr, IpAddress,
    Ipv4Address,
};

use crate::guest::Guest;
use crate::tunnel::Failure;

const PORT: u16 = 53;
const ID: u16 = 0x4145;
pub const TXT: DnsQueryType = DnsQueryType::Unknown(16);

pub fn resolve(guest: &mut Guest, server: Ipv4Address, name: &str) -> Result<Ipv4Address, Failure> {
    let mut socket = dns::Socket::new(&[IpAddress::Ipv4(server)], vec![None]);
    let query = socket.start_query(guest.interface.context(), name, DnsQueryType::A)?;
    let handle = guest.sockets.add(socket);
    let found =
        guest.wait(|guest| match guest.sockets.get_mut::<dns::Socket>(handle).get_query_result(query) {
            Err(dns::GetQueryResultError::Pending) => Ok(None),
            other => Ok(Some(other?)),
        })?;
    guest.sockets.remove(handle);
    match found.first() {
        Some(IpAddress::Ipv4(address)) => Ok(*address),
        None => Err("no address".into()),
    }
}

fn query(name: &str, kind: DnsQueryType) -> Result<Vec<u8>, Failure> {
    let mut encoded = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        encoded.push(u8::try_from(label.len())?);
        encoded.extend_from_slice(label.as_bytes());
    }
    encoded.push(0);
    let question = DnsQuestion { name: &encoded, type_: kind };
    let repr = DnsRepr {
        transaction_id: ID,
        opcode: DnsOpcode::Query,
        flags: DnsFlags::RECURSION_DESIRED,
        question,
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut DnsPacket::new_unchecked(&mut bytes[..]));
    Ok(bytes)
}

pub fn over_udp(
    guest: &mut Guest,
    server: Ipv4Address,
    name: &str,
    kind: DnsQueryType,
) -> Result<String, Failure> {
    let question = query(name, kind)?;
    let handle = guest.udp_socket()?;
    let send = |guest: &mut Guest| {
        let socket = guest.sockets.get_mut::<udp::Socket>(handle);
        Ok(socket.send_slice(&question, (IpAddress::Ipv4(server), PORT))?)
    };
    let reply = guest.ask(send, |guest| {
        let socket = guest.sockets.get_mut::<udp::Socket>(handle);
        Ok(if socket.can_recv() { Some(socket.recv()?.0.to_vec()) } else { None })
    })?;
    describe(&reply)
}

/// RFC 1035 section 4.2.2: two bytes of length before each message.
pub fn over_tcp(
    guest: &mut Guest,
    server: Ipv4Address,
    name: &str,
    kind: DnsQueryType,
) -> Result<String, Failure> {
    let question = query(name, kind)?;
    let mut sent = u16::try_from(question.len())?.to_be_bytes().to_vec();
    sent.extend_from_slice(&question);
    let handle = guest.connect(server, PORT)?;
    let reply = guest.converse(handle, &sent, true)?;
    match reply.split_first_chunk::<2>() {
        Some((size, message)) if usize::from(u16::from_be_bytes(*size)) == message.len() => describe(message),
        _ => Err(format!("{} bytes, with another length before them", reply.len()).into()),
    }
}

/// The answer in the words of guestnet.c.
fn describe(message: &[u8]) -> Result<String, Failure> {
    let packet = DnsPacket::new_checked(message)?;
    if packet.transaction_id() != ID {
        return Err("the answer to another query".into());
    }
    let truncated = u8::from(packet.flags().contains(DnsFlags::TRUNCATED));
    let (rcode, answers) = (u8::from(packet.rcode()), packet.answer_record_count());
    let seen = format!("rcode {rcode} tc {truncated} answers {answers} bytes {}", message.len());
    if answers != 1 {
        return Ok(seen);
    }
    let (rest, _) = DnsQuestion::parse(packet.payload())?;
    match DnsRecord::parse(rest)?.1.data {
        DnsRecordData::A(address) => Ok(format!("{seen} {address}")),
        _ => Ok(seen),
    }
}
