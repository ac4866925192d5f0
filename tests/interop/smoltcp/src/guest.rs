//! A network stack with one card, driven until something comes true.

use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::{dhcpv4, icmp, tcp, udp};
use smoltcp::time::Instant as StackTime;
use smoltcp::wire::{EthernetAddress, IpAddress, Ipv4Address};

use crate::tunnel::{Failure, Tunnel};

const HARDWARE: EthernetAddress = EthernetAddress([0x02, 0, 0, 0, 0, 0x0F]);
const LONGEST_WAIT: Duration = Duration::from_millis(100);
const TCP_BUFFER: usize = 256 * 1024;
const DATAGRAM_BUFFER: usize = 65535;
const FIRST_PORT: u16 = 49152;
pub const DATAGRAM_TRIES: usize = 20;

pub struct Guest {
    pub tunnel: Tunnel,
    pub interface: Interface,
    pub sockets: SocketSet<'static>,
    pub dhcp: SocketHandle,
    began: Instant,
    skipped: Duration,
    deadline: Instant,
    last_port: u16,
}

impl Guest {
    /// A guest whose waiting ends in an error once `limit` has passed.
    pub fn new(mut tunnel: Tunnel, limit: Duration) -> Self {
        let began = Instant::now();
        let mut config = Config::new(HARDWARE.into());
        config.random_seed = u64::from(std::process::id());
        let interface = Interface::new(config, &mut tunnel, StackTime::ZERO);
        let mut sockets = SocketSet::new(Vec::new());
        let mut dhcp = dhcpv4::Socket::new();
        dhcp.set_receive_packet_buffer(vec![0; 1500].leak());
        dhcp.set_parameter_request_list(&[1, 3, 6, 26, 51]);
        let dhcp = sockets.add(dhcp);
        let deadline = began + limit;
        let last_port = FIRST_PORT + (std::process::id() % 8192) as u16;
        Self { tunnel, interface, sockets, dhcp, began, skipped: Duration::ZERO, deadline, last_port }
    }

    /// The stack's clock is ours: lets it believe that so much time has passed.
    pub fn skip(&mut self, time: Duration) {
        self.skipped += time;
    }

    fn now(&self) -> StackTime {
        StackTime::from_micros((self.began.elapsed() + self.skipped).as_micros() as i64)
    }

    /// Drives the stack until `done` gives something, or `limit` has passed: then None.
    pub fn drive<T>(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&mut Self) -> Result<Option<T>, Failure>,
    ) -> Result<Option<T>, Failure> {
        let until = Instant::now() + limit;
        loop {
            let now = self.now();
            let polled = self.interface.poll(now, &mut self.tunnel, &mut self.sockets);
            self.tunnel.send()?;
            if let Some(found) = done(self)? {
                return Ok(Some(found));
            }
            if Instant::now() > self.deadline {
                return Err("the time for all checks is over".into());
            }
            if Instant::now() > until {
                return Ok(None);
            }
            let delay = match polled {
                PollResult::SocketStateChanged => Duration::ZERO,
                PollResult::None => LONGEST_WAIT,
            };
            let next = self.interface.poll_delay(self.now(), &self.sockets).map_or(LONGEST_WAIT, Into::into);
            let wait = delay.min(next);
            if wait > Duration::ZERO {
                self.tunnel.receive(wait)?;
            }
        }
    }

    /// Drives the stack until `done` gives something.
    pub fn wait<T>(
        &mut self,
        done: impl FnMut(&mut Self) -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        let whole = self.deadline.saturating_duration_since(Instant::now()) + Duration::from_secs(1);
        self.drive(whole, done)?.ok_or_else(|| "the time for all checks is over".into())
    }

    /// Sends a datagram again each second until `receive` gives something: datagrams may be lost.
    pub fn ask<T>(
        &mut self,
        mut send: impl FnMut(&mut Self) -> Result<(), Failure>,
        mut receive: impl FnMut(&mut Self) -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        for _ in 0..DATAGRAM_TRIES {
            send(self)?;
            if let Some(found) = self.drive(Duration::from_secs(1), &mut receive)? {
                return Ok(found);
            }
        }
        Err(format!("no answer to {DATAGRAM_TRIES} datagrams").into())
    }

    pub fn port(&mut self) -> u16 {
        self.last_port += 1;
        self.last_port
    }

    pub fn udp_socket(&mut self) -> Result<SocketHandle, Failure> {
        let mut socket = udp::Socket::new(
            udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; DATAGRAM_BUFFER]),
            udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; DATAGRAM_BUFFER]),
        );
        socket.bind(self.port())?;
        Ok(self.sockets.add(socket))
    }

    pub fn icmp_socket(&mut self, ident: u16) -> Result<SocketHandle, Failure> {
        let mut socket = icmp::Socket::new(
            icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 8], vec![0; 2048]),
            icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 8], vec![0; 2048]),
        );
        socket.bind(icmp::Endpoint::Ident(ident))?;
        Ok(self.sockets.add(socket))
    }

    /// A connected TCP socket; an error if the other side refuses.
    pub fn connect(&mut self, to: Ipv4Address, port: u16) -> Result<SocketHandle, Failure> {
        let mut socket = tcp::Socket::new(
            tcp::SocketBuffer::new(vec![0; TCP_BUFFER]),
            tcp::SocketBuffer::new(vec![0; TCP_BUFFER]),
        );
        socket.set_congestion_control(tcp::CongestionControl::Reno);
        let own = self.port();
        socket.connect(self.interface.context(), (IpAddress::Ipv4(to), port), own)?;
        let handle = self.sockets.add(socket);
        self.wait(|guest| match guest.sockets.get::<tcp::Socket>(handle).state() {
            tcp::State::Established => Ok(Some(())),
            tcp::State::Closed => Err(format!("{to}:{port} refused").into()),
            _ => Ok(None),
        })?;
        Ok(handle)
    }

    /// Sends bytes, FIN where `finish` says so, and reads until the other side's FIN.
    pub fn converse(&mut self, handle: SocketHandle, bytes: &[u8], finish: bool) -> Result<Vec<u8>, Failure> {
        let (mut sent, mut reply) = (0, Vec::new());
        self.wait(|guest| {
            let socket = guest.sockets.get_mut::<tcp::Socket>(handle);
            if sent < bytes.len() && socket.can_send() {
                sent += socket.send_slice(&bytes[sent..])?;
                if sent == bytes.len() && finish {
                    socket.close();
                }
            }
            while socket.can_recv() {
                socket.recv(|data| {
                    reply.extend_from_slice(data);
                    (data.len(), ())
                })?;
            }
            match socket.state() {
                tcp::State::Closed => Err(format!("reset after {} bytes", reply.len()).into()),
                _ => Ok((!socket.may_recv()).then_some(())),
            }
        })?;
        self.sockets.get_mut::<tcp::Socket>(handle).close();
        Ok(reply)
    }
}
