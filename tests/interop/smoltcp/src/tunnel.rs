//! A network card of smoltcp's whose other end is a WebSocket: docs/protocol.md.

use std::collections::VecDeque;
use std::error::Error;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use tungstenite::client::{IntoClientRequest, client_with_config};
use tungstenite::http::{HeaderValue, Uri};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Message, WebSocket};

const SUBPROTOCOL: &str = "aero-l2-tunnel-v1";
const MAGIC: u8 = 0xA2;
const VERSION: u8 = 0x03;
const FRAME: u8 = 0x00;
const PING: u8 = 0x01;
const PONG: u8 = 0x02;
const ERROR: u8 = 0x7F;
const MAX_MESSAGE_BYTES: usize = 4 + 2048;
const ETHERNET_MTU: usize = 1514;
const QUEUED_FRAMES: usize = 64;

pub type Failure = Box<dyn Error>;

pub struct Tunnel {
    socket: WebSocket<TcpStream>,
    received: VecDeque<Vec<u8>>,
    to_send: VecDeque<Vec<u8>>,
    timeout: Duration,
}

impl Tunnel {
    pub fn open(url: &str, origin: &str) -> Result<Self, Failure> {
        let mut request = url.into_client_request()?;
        let headers = request.headers_mut();
        headers.insert("Origin", HeaderValue::from_str(origin)?);
        headers.insert("Sec-WebSocket-Protocol", HeaderValue::from_static(SUBPROTOCOL));
        let limits = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE_BYTES));
        let stream = connected(request.uri())?;
        stream.set_nodelay(true)?;
        let (socket, _) = client_with_config(request, stream, Some(limits))?;
        Ok(Self { socket, received: VecDeque::new(), to_send: VecDeque::new(), timeout: Duration::ZERO })
    }

    /// Waits for a message from the server, not longer than `timeout`, and queues what it brings.
    pub fn receive(&mut self, timeout: Duration) -> Result<(), Failure> {
        let timeout = timeout.max(Duration::from_millis(1)); // zero would be for ever
        if timeout != self.timeout {
            self.socket.get_ref().set_read_timeout(Some(timeout))?;
            self.timeout = timeout;
        }
        match self.socket.read() {
            Ok(Message::Binary(data)) => self.handle(&data),
            Ok(Message::Close(why)) => Err(format!("the server closed: {why:?}").into()),
            Ok(_) => Ok(()),
            Err(tungstenite::Error::Io(error))
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn handle(&mut self, data: &[u8]) -> Result<(), Failure> {
        match data {
            [MAGIC, VERSION, FRAME, _, frame @ ..] => self.received.push_back(frame.to_vec()),
            [MAGIC, VERSION, PING, _, payload @ ..] => self.socket.send(message(PONG, payload))?,
            [MAGIC, VERSION, ERROR, _, payload @ ..] => {
                eprintln!("smoltcp: the server's error: {:?}", String::from_utf8_lossy(payload));
            }
            _ => {}
        }
        Ok(())
    }

    /// Sends what the stack left to be sent.
    pub fn send(&mut self) -> Result<(), Failure> {
        if self.to_send.is_empty() {
            return Ok(());
        }
        for frame in self.to_send.drain(..) {
            self.socket.write(message(FRAME, &frame))?;
        }
        Ok(self.socket.flush()?)
    }

    /// Ends the tunnel by a close handshake; an error if it ends otherwise, or not within `limit`.
    pub fn close(mut self, limit: Duration) -> Result<(), Failure> {
        let until = std::time::Instant::now() + limit;
        self.socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))?;
        loop {
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return Err("the server does not close".into());
            }
            self.socket.get_ref().set_read_timeout(Some(left))?;
            match self.socket.read() {
                Ok(_) => {}
                Err(tungstenite::Error::ConnectionClosed) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A TCP connection to an address; the text of an error has no query, which may hold a token.
fn connected(uri: &Uri) -> Result<TcpStream, Failure> {
    if uri.scheme_str() != Some("ws") {
        return Err("only ws:// is spoken here".into());
    }
    let host = uri.host().ok_or("no host")?;
    let port = uri.port_u16().unwrap_or(80);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    Ok(TcpStream::connect((bare, port)).map_err(|error| format!("{host}:{port}: {error}"))?)
}

fn message(kind: u8, payload: &[u8]) -> Message {
    let mut bytes = Vec::with_capacity(4 + payload.len());
    bytes.extend_from_slice(&[MAGIC, VERSION, kind, 0]);
    bytes.extend_from_slice(payload);
    Message::binary(bytes)
}

impl Device for Tunnel {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Received, Sending<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sending(&mut self.to_send)))
    }

    /// A full queue has the stack wait, as a full card does.
    fn transmit(&mut self, _now: Instant) -> Option<Sending<'_>> {
        (self.to_send.len() < QUEUED_FRAMES).then_some(Sending(&mut self.to_send))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = ETHERNET_MTU;
        capabilities
    }
}

pub struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

pub struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, size: usize, fill: F) -> R {
        let mut frame = vec![0; size];
        let result = fill(&mut frame);
        self.0.push_back(frame);
        result
    }
}
