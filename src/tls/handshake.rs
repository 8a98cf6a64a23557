//! The handshake of both sides, over the same reads and writes as everything after it.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, ServerConfig, pki_types};
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::hello::Hello;
use super::records::Session;
use super::server_name::{self, ServerName};
use super::{Held, JOINED, TlsStream};

/// Answers a client's hello and goes on to the end of the handshake. All that is dear is done when this is polled for the
/// first time, but what TLS 1.2 leaves for the second and the check of a client's certificate. The name is the one that the
/// client asked for, where the configuration's resolver is wrapped in `Noting`. Where the client has sent more than its
/// handshake, our last message may wait for the first write, flush or shutdown, or for a read that finds nothing.
///
/// # Errors
/// With the connection, so that the client may still be told something. A TLS error has the kind `InvalidData` and
/// holds a `rustls::Error`; its alert has been sent.
pub async fn accept(
    config: Arc<ServerConfig>,
    hello: Hello,
    tcp: TcpStream,
) -> Result<(Box<TlsStream>, Option<ServerName>), (io::Error, TcpStream)> {
    let connection = match UnbufferedServerConnection::new(config) {
        Ok(connection) => connection,
        Err(error) => return Err((io::Error::other(error), tcp)),
    };
    let mut stream = Box::new(TlsStream::new(tcp, Session::Server(connection)));
    let mut name = None;
    let mut hello = hello.into_bytes();
    let done = poll_fn(|cx| {
        let mut read = std::mem::take(&mut hello);
        let begun = match &mut read[..] {
            [] => Ok(()),
            bytes => stream.process(bytes, &mut ReadBuf::new(&mut [])),
        };
        let done = match begun {
            Ok(()) => poll_handshake(&mut stream, cx),
            Err(error) => alerted(&mut stream, error, cx),
        };
        // Whatever hello was read in this very poll.
        name = server_name::noted().or(name.take());
        done
    });
    match done.await {
        Ok(()) => Ok((stream, name)),
        Err(error) => Err((error, stream.tcp)),
    }
}

/// Greets a broker.
///
/// # Errors
/// As `accept`.
pub async fn connect(
    config: Arc<ClientConfig>,
    name: pki_types::ServerName<'static>,
    tcp: TcpStream,
) -> io::Result<Box<TlsStream>> {
    let connection = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
    let mut stream = Box::new(TlsStream::new(tcp, Session::Client(connection)));
    // The hello.
    stream.process(&mut [], &mut ReadBuf::new(&mut []))?;
    poll_fn(|cx| poll_handshake(&mut stream, cx)).await?;
    Ok(stream)
}

fn poll_handshake(stream: &mut TlsStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    loop {
        let done = !stream.agreed().is_handshaking();
        if done && !stream.plain.is_empty() && stream.outgoing.len() <= JOINED {
            // A request has come with the last message: our own last one, tickets most often, leaves with the answer.
            if !stream.outgoing.is_empty() {
                stream.held = Held::Back;
            }
            return Poll::Ready(Ok(()));
        }
        ready!(stream.poll_send(cx))?;
        if done {
            return Poll::Ready(Ok(()));
        }
        // Plaintext behind the last handshake message is kept for the first read.
        let read = ready!(stream.poll_records(cx, &mut ReadBuf::new(&mut [])));
        if let Err(error) = read {
            return alerted(stream, error, cx);
        }
        // Behind its last message a client may have said all that it has to say.
        if stream.ended && stream.agreed().is_handshaking() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// The alert is sent as far as the socket takes it: the peer may be gone.
fn alerted(stream: &mut TlsStream, error: io::Error, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    let _sent = stream.poll_send(cx);
    Poll::Ready(Err(error))
}
