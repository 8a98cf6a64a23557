//! The state machine of rustls' unbuffered interface, one call for each thing that a stream does. No I/O.

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error};

/// A record on the wire: header, 2^14 bytes of plaintext, and what encryption may add (RFC 5246 6.2.3; RFC 8446 5.2 allows
/// less).
pub(super) const LONGEST: usize = 5 + 16 * 1024 + 2048;

/// Our side of one connection.
pub(super) enum Session {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// What became of some ciphertext.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Processed {
    /// Bytes from its front that are done with.
    pub(super) taken: usize,
    /// The peer said close_notify.
    pub(super) ended: bool,
}

impl Session {
    /// What the handshake agreed on.
    pub(super) fn agreed(&self) -> &CommonState {
        match self {
            Self::Server(connection) => connection,
            Self::Client(connection) => connection,
        }
    }

    /// Takes whole records off the front of `bytes`, hands their plaintext to `take` and appends what is to be sent to `out`.
    pub(super) fn process(
        &mut self,
        bytes: &mut [u8],
        out: &mut Vec<u8>,
        take: impl FnMut(&[u8]),
    ) -> Result<Processed, Error> {
        match self {
            Self::Server(connection) => process(connection, bytes, out, take),
            Self::Client(connection) => process(connection, bytes, out, take),
        }
    }

    /// After an error: appends the alert that tells the peer. Nothing else may be asked of this connection then.
    pub(super) fn alert(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        match self {
            Self::Server(connection) => alert(connection, out),
            Self::Client(connection) => alert(connection, out),
        }
    }

    /// Writes `bytes` as records to the front of `space`; answers how much of it they take. `incoming` is what `process`
    /// left.
    pub(super) fn encrypt(
        &mut self,
        bytes: &[u8],
        incoming: &mut Vec<u8>,
        space: &mut [u8],
    ) -> Result<usize, Error> {
        match self {
            Self::Server(connection) => write(connection, incoming, space, |to, space| {
                to.encrypt(bytes, space)
            }),
            Self::Client(connection) => write(connection, incoming, space, |to, space| {
                to.encrypt(bytes, space)
            }),
        }
    }

    /// Writes the alert that says that nothing follows, as `encrypt` does.
    pub(super) fn say_close_notify(
        &mut self,
        incoming: &mut Vec<u8>,
        space: &mut [u8],
    ) -> Result<usize, Error> {
        match self {
            Self::Server(connection) => write(connection, incoming, space, |to, space| {
                to.queue_close_notify(space)
            }),
            Self::Client(connection) => write(connection, incoming, space, |to, space| {
                to.queue_close_notify(space)
            }),
        }
    }
}

/// What both sides' connections have in common: rustls has no trait for it.
trait Connection {
    type Data;

    fn agreed(&self) -> &CommonState;

    fn advance<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Connection for UnbufferedServerConnection {
    type Data = rustls::server::ServerConnectionData;

    fn agreed(&self) -> &CommonState {
        self
    }

    fn advance<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }
}

impl Connection for UnbufferedClientConnection {
    type Data = rustls::client::ClientConnectionData;

    fn agreed(&self) -> &CommonState {
        self
    }

    fn advance<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }
}

fn process<C: Connection>(
    connection: &mut C,
    bytes: &mut [u8],
    out: &mut Vec<u8>,
    mut take: impl FnMut(&[u8]),
) -> Result<Processed, Error> {
    let mut processed = Processed::default();
    loop {
        let UnbufferedStatus { mut discard, state } =
            connection.advance(&mut bytes[processed.taken..]);
        let done = match state? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    take(record.payload);
                }
                // Nothing is left to ask about, as nearly always.
                processed.taken + discard == bytes.len() && !connection.agreed().wants_write()
            }
            ConnectionState::EncodeTlsData(data) => {
                encode(data, out)?;
                false
            }
            // It stands in `out`, which the stream sends before anything else.
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                false
            }
            ConnectionState::PeerClosed => {
                processed.ended = true;
                false
            }
            ConnectionState::BlockedHandshake
            | ConnectionState::WriteTraffic(_)
            | ConnectionState::Closed => true,
            // 0-RTT is never offered, and rustls adds states only to configurations that ask for them.
            _ => {
                return Err(Error::General(
                    "an unknown state of the TLS connection".to_owned(),
                ));
            }
        };
        processed.taken += discard;
        if done {
            return Ok(processed);
        }
    }
}

/// Brings the connection to where it may write, and writes to the front of `space`.
///
/// INVARIANT: rustls is shown `incoming` again. Where a handshake message has come in part it keeps places in these bytes,
/// and would look for them in any others.
fn write<C: Connection>(
    connection: &mut C,
    incoming: &mut Vec<u8>,
    space: &mut [u8],
    mut fill: impl FnMut(&mut WriteTraffic<'_, C::Data>, &mut [u8]) -> Result<usize, EncryptError>,
) -> Result<usize, Error> {
    let mut written = 0;
    loop {
        let space = &mut space[written..];
        let UnbufferedStatus { discard, state } = connection.advance(incoming);
        match state? {
            ConnectionState::WriteTraffic(mut traffic) => {
                let count = fill(&mut traffic, space);
                written += count.map_err(|_exhausted| Error::EncryptError)?;
                incoming.drain(..discard);
                return Ok(written);
            }
            ConnectionState::EncodeTlsData(mut data) => {
                written += data.encode(space).map_err(|_no_room| Error::EncryptError)?;
            }
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::PeerClosed => {}
            // Both sides have said close_notify: nothing may follow (RFC 8446 6.1).
            _ => return Ok(written),
        }
        incoming.drain(..discard);
    }
}

fn alert<C: Connection>(connection: &mut C, out: &mut Vec<u8>) -> Result<(), Error> {
    // What waits to be sent comes before any look at the bytes.
    while connection.agreed().wants_write() {
        match connection.advance(&mut []).state? {
            ConnectionState::EncodeTlsData(data) => encode(data, out)?,
            ConnectionState::ReadTraffic(mut traffic) => while traffic.next_record().is_some() {},
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// Appends a handshake message or an alert.
fn encode<D>(mut data: EncodeTlsData<'_, D>, out: &mut Vec<u8>) -> Result<(), Error> {
    let start = out.len();
    // It says how much it needs.
    if let Err(EncodeError::InsufficientSize(missing)) = data.encode(&mut []) {
        out.resize(start + missing.required_size, 0);
    }
    match data.encode(&mut out[start..]) {
        Ok(_) => Ok(()),
        Err(_impossible) => Err(Error::EncryptError),
    }
}
