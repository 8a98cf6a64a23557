//! Against rustls' own buffered side, over real sockets: cut anywhere, any length, and what must not be.

#![expect(
    clippy::disallowed_methods,
    reason = "the other side is no client of the gateway's"
)]

use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::server::ResolvesServerCertUsingSni;
use rustls::{
    CipherSuiteCommon, ClientConfig, ClientConnection, RootCertStore, ServerConfig,
    SupportedCipherSuite, SupportedProtocolVersion, Tls13CipherSuite, version,
};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Hello, Noting, TlsStream, accept, connect};

const NAME: &str = "gateway.example";
const PATIENCE: Duration = Duration::from_secs(20);

struct Parts {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

fn parts(versions: &[&'static SupportedProtocolVersion]) -> Parts {
    parts_of(versions, rustls::crypto::aws_lc_rs::default_provider())
}

fn parts_of(
    versions: &[&'static SupportedProtocolVersion],
    provider: rustls::crypto::CryptoProvider,
) -> Parts {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let provider = Arc::new(provider);
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let key = provider.key_provider.load_private_key(key.into()).unwrap();
    let key = rustls::sign::CertifiedKey::new(vec![made.cert.der().clone()], key);
    let mut resolver = ResolvesServerCertUsingSni::new();
    resolver.add(NAME, key).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Noting::new(Arc::new(resolver)));
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Parts {
        server: Arc::new(server),
        client: Arc::new(client),
    }
}

fn name() -> ServerName<'static> {
    NAME.try_into().unwrap()
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (connected, accepted) = tokio::join!(connecting, listener.accept());
    (connected.unwrap(), accepted.unwrap().0)
}

type TheirClient = tokio_rustls::client::TlsStream<TcpStream>;

/// Our server and rustls' own buffered client.
async fn with_their_client(parts: &Parts) -> (TheirClient, Box<TlsStream>) {
    over(parts, sockets().await).await
}

/// The same where the kernel takes little at once from whom nobody reads.
pub(crate) async fn over_small_sockets() -> (TheirClient, Box<TlsStream>) {
    let (near, far) = sockets().await;
    SockRef::from(&near).set_recv_buffer_size(8192).unwrap();
    SockRef::from(&far).set_send_buffer_size(8192).unwrap();
    over(&parts(&[&version::TLS13]), (near, far)).await
}

async fn over(parts: &Parts, (near, far): (TcpStream, TcpStream)) -> (TheirClient, Box<TlsStream>) {
    let theirs = TlsConnector::from(Arc::clone(&parts.client)).connect(name(), near);
    let ours = answer(parts, far);
    let (theirs, ours) = tokio::join!(theirs, ours);
    let (ours, server_name) = ours.unwrap();
    assert_eq!(server_name.as_deref(), Some(NAME));
    (theirs.unwrap(), ours)
}

/// Our side of a handshake, from the first byte on.
async fn answer(
    parts: &Parts,
    mut tcp: TcpStream,
) -> Result<(Box<TlsStream>, Option<String>), (std::io::Error, TcpStream)> {
    match Hello::read(&mut tcp, Vec::new()).await {
        Ok(hello) => accept(Arc::clone(&parts.server), hello, tcp).await,
        Err(error) => Err((error, tcp)),
    }
}

/// Sends `bytes` and reads as many back, both at once.
async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Vec<u8> {
    let (mut read, mut write) = tokio::io::split(stream);
    let mut back = vec![0; bytes.len()];
    let sending = async {
        write.write_all(bytes).await.unwrap();
        write.flush().await.unwrap();
    };
    let (_, read) = tokio::join!(sending, read.read_exact(&mut back));
    read.unwrap();
    back
}

async fn copy_back(mut stream: Box<TlsStream>) -> Box<TlsStream> {
    let mut buffer = vec![0; 100_000];
    loop {
        let count = stream.read(&mut buffer).await.unwrap();
        if count == 0 {
            stream.shutdown().await.unwrap();
            return stream;
        }
        stream.write_all(&buffer[..count]).await.unwrap();
        stream.flush().await.unwrap();
    }
}

fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::fill(&mut bytes);
    bytes
}

fn assert_holds_nothing(stream: &TlsStream) {
    let buffers = [&stream.incoming, &stream.plain, &stream.outgoing];
    assert_eq!(buffers.map(Vec::capacity), [0, 0, 0]);
}

#[tokio::test]
async fn every_length_comes_back_in_both_versions_and_no_buffer_is_left() {
    for version in [&version::TLS13, &version::TLS12] {
        let parts = parts(&[version]);
        let (mut theirs, ours) = with_their_client(&parts).await;
        let ours = tokio::spawn(copy_back(ours));
        // Around one record, around one read, and far above what sockets hold.
        for length in [1, 64, 16_383, 16_384, 16_385, 65_535, 65_537, 3_000_000] {
            let bytes = random(length);
            let back = timeout(PATIENCE, echo(&mut theirs, &bytes)).await.unwrap();
            assert!(back == bytes, "{length} bytes in {version:?}");
        }
        theirs.shutdown().await.unwrap();
        let ours = timeout(PATIENCE, ours).await.unwrap().unwrap();
        assert_holds_nothing(&ours);
        // Our close_notify came: an end without it is an error (RFC 8446 6.1).
        assert_eq!(theirs.read(&mut [0; 10]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn our_client_understands_our_server() {
    let parts = parts(&[&version::TLS13]);
    let (near, far) = sockets().await;
    let (client, server) = tokio::join!(
        connect(Arc::clone(&parts.client), name(), near),
        answer(&parts, far)
    );
    let (mut client, (server, _)) = (client.unwrap(), server.unwrap());
    let server = tokio::spawn(copy_back(server));
    let bytes = random(500_000);
    let back = timeout(PATIENCE, echo(&mut client, &bytes)).await.unwrap();
    assert!(back == bytes);
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0; 10]).await.unwrap(), 0);
    assert_holds_nothing(&client);
    server.await.unwrap();
}

/// Hands bytes on one by one, so that every record and every handshake message is cut everywhere.
async fn drip(from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut from = tokio::io::BufReader::new(from);
    while let Ok(byte) = from.read_u8().await {
        if to.write_u8(byte).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
    let _gone = to.shutdown().await;
}

#[tokio::test]
async fn records_may_be_cut_anywhere() {
    let parts = parts(&[&version::TLS13]);
    let (near, middle_near) = sockets().await;
    let (middle_far, far) = sockets().await;
    near.set_nodelay(true).unwrap();
    let (near_read, near_write) = middle_near.into_split();
    let (far_read, far_write) = middle_far.into_split();
    let up = tokio::spawn(drip(near_read, far_write));
    let down = tokio::spawn(drip(far_read, near_write));
    let theirs = TlsConnector::from(Arc::clone(&parts.client)).connect(name(), near);
    let (theirs, ours) = tokio::join!(theirs, answer(&parts, far));
    let (mut theirs, (ours, _)) = (theirs.unwrap(), ours.unwrap());
    let ours = tokio::spawn(copy_back(ours));
    let bytes = random(40_000);
    let back = timeout(PATIENCE, echo(&mut theirs, &bytes)).await.unwrap();
    assert!(back == bytes);
    theirs.shutdown().await.unwrap();
    assert_holds_nothing(&ours.await.unwrap());
    drop(theirs);
    up.await.unwrap();
    down.await.unwrap();
}

#[tokio::test]
async fn new_keys_of_the_peer_are_taken_and_answered() {
    let parts = parts(&[&version::TLS13]);
    let (mut theirs, ours) = with_their_client(&parts).await;
    let ours = tokio::spawn(copy_back(ours));
    for _ in 0..3 {
        theirs.get_mut().1.refresh_traffic_keys().unwrap();
        let bytes = random(100_000);
        let back = timeout(PATIENCE, echo(&mut theirs, &bytes)).await.unwrap();
        assert!(back == bytes);
    }
    theirs.shutdown().await.unwrap();
    assert_holds_nothing(&ours.await.unwrap());
}

/// After 2^24 records in life (RFC 8446 5.5), here after few.
#[tokio::test]
async fn keys_that_are_used_up_are_renewed() {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.retain_mut(|suite| {
        let Some(known) = suite.tls13() else {
            return false;
        };
        let limited = Tls13CipherSuite {
            common: CipherSuiteCommon {
                confidentiality_limit: 7,
                ..known.common
            },
            ..*known
        };
        *suite = SupportedCipherSuite::Tls13(Box::leak(Box::new(limited)));
        true
    });
    let parts = parts_of(&[&version::TLS13], provider);
    let (mut theirs, ours) = with_their_client(&parts).await;
    let ours = tokio::spawn(copy_back(ours));
    for length in [1, 1, 1, 100_000, 1_000_000, 5] {
        let bytes = random(length);
        let back = timeout(PATIENCE, echo(&mut theirs, &bytes)).await.unwrap();
        assert!(back == bytes, "{length} bytes");
    }
    theirs.shutdown().await.unwrap();
    assert_holds_nothing(&ours.await.unwrap());
}

#[tokio::test]
async fn a_reader_with_little_room_gets_everything() {
    let parts = parts(&[&version::TLS13]);
    let (mut theirs, mut ours) = with_their_client(&parts).await;
    let bytes = random(50_000);
    let sending = async {
        theirs.write_all(&bytes).await.unwrap();
        theirs.shutdown().await.unwrap();
    };
    let reading = async {
        let mut read = Vec::new();
        let mut few = [0; 7];
        loop {
            match ours.read(&mut few).await.unwrap() {
                0 => return read,
                count => read.extend_from_slice(&few[..count]),
            }
        }
    };
    let (_, read) = timeout(PATIENCE, async { tokio::join!(sending, reading) })
        .await
        .unwrap();
    assert!(read == bytes);
    assert_holds_nothing(&ours);
}

/// A handshake of a client that sends its last message and `b"a question"` in one segment, and close_notify too where it
/// `leaves`.
async fn asked_at_once(leaves: bool) -> (ClientConnection, TcpStream, Box<TlsStream>) {
    let parts = parts(&[&version::TLS13]);
    let (mut near, far) = sockets().await;
    let asking = async {
        let mut client = ClientConnection::new(Arc::clone(&parts.client), name()).unwrap();
        let mut flight = Vec::new();
        while client.is_handshaking() {
            client.write_tls(&mut flight).unwrap();
            near.write_all(&std::mem::take(&mut flight)).await.unwrap();
            let mut answer = vec![0; 16 * 1024];
            let count = near.read(&mut answer).await.unwrap();
            client.read_tls(&mut &answer[..count]).unwrap();
            client.process_new_packets().unwrap();
        }
        client.writer().write_all(b"a question").unwrap();
        if leaves {
            client.send_close_notify();
        }
        while client.wants_write() {
            client.write_tls(&mut flight).unwrap();
        }
        near.write_all(&flight).await.unwrap();
        client
    };
    let both = async { tokio::join!(asking, answer(&parts, far)) };
    let (client, accepted) = timeout(PATIENCE, both).await.unwrap();
    (client, near, accepted.unwrap().0)
}

/// What has come, by the kernel's word and without waiting: nothing, most often.
fn come(socket: &TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    let count = match (&*SockRef::from(socket)).read(&mut bytes) {
        Ok(count) => count,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("{error}"),
    };
    bytes.truncate(count);
    bytes
}

/// What one read gives, and what the client makes of it.
async fn hear(client: &mut ClientConnection, near: &mut TcpStream) -> (rustls::IoState, String) {
    let mut bytes = vec![0; 4096];
    let count = timeout(PATIENCE, near.read(&mut bytes)).await;
    let mut bytes = &bytes[..count.unwrap().unwrap()];
    client.read_tls(&mut bytes).unwrap();
    let state = client.process_new_packets().unwrap();
    let mut said = vec![0; state.plaintext_bytes_to_read()];
    client.reader().read_exact(&mut said).unwrap();
    (state, String::from_utf8(said).unwrap())
}

/// Looks for more behind the question, in vain.
fn finds_nothing(ours: &mut TlsStream, cx: &mut std::task::Context<'_>) {
    let more = Pin::new(ours).poll_read(cx, &mut ReadBuf::new(&mut [0]));
    assert!(more.is_pending());
}

/// A client that only asks one thing may send the end of its handshake, its question and its close_notify in one segment.
#[tokio::test]
async fn what_comes_with_the_end_of_the_handshake_is_not_lost() {
    let (_client, _near, mut ours) = asked_at_once(true).await;
    let mut read = Vec::new();
    ours.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"a question");
}

/// A call less for each handshake whose client does not wait. HTTP looks for more before it answers.
#[tokio::test]
async fn tickets_leave_with_the_answer_to_a_question_that_came_at_once() {
    let (mut client, mut near, mut ours) = asked_at_once(false).await;
    let mut question = [0; 10];
    ours.read_exact(&mut question[..3]).await.unwrap();
    ours.read_exact(&mut question[3..]).await.unwrap();
    poll_fn(|cx| {
        finds_nothing(&mut ours, cx);
        assert_eq!(come(&near), b"");
        Pin::new(&mut ours).poll_write(cx, b"an answer")
    })
    .await
    .unwrap();
    let (_, said) = hear(&mut client, &mut near).await;
    assert_eq!((client.tls13_tickets_received(), &*said), (2, "an answer"));
    assert_holds_nothing(&ours);
}

#[tokio::test]
async fn tickets_do_not_wait_for_an_answer_that_takes_its_time() {
    let (mut client, mut near, mut ours) = asked_at_once(false).await;
    let mut question = [0; 10];
    ours.read_exact(&mut question).await.unwrap();
    let mut turns = 0;
    let two_turns = poll_fn(|cx| {
        turns += 1;
        finds_nothing(&mut ours, cx);
        match turns {
            1 => {
                assert_eq!(come(&near), b"");
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    });
    timeout(PATIENCE, two_turns).await.unwrap();
    hear(&mut client, &mut near).await;
    assert_eq!(client.tls13_tickets_received(), 2);
    assert_holds_nothing(&ours);
}

#[tokio::test]
async fn last_words_leave_with_close_notify() {
    let (mut client, mut near, mut ours) = asked_at_once(false).await;
    ours.gather();
    ours.write_all(b"the last").await.unwrap();
    ours.write_all(b" words").await.unwrap();
    assert_eq!(come(&near), b"");
    ours.shutdown().await.unwrap();
    let (state, said) = hear(&mut client, &mut near).await;
    assert!(state.peer_has_closed());
    assert_eq!(said, "the last words");
}

#[tokio::test]
async fn last_words_without_end_are_not_kept() {
    let (_client, near, mut ours) = asked_at_once(false).await;
    ours.gather();
    for _ in 0..5 {
        ours.write_all(&[7; 1000]).await.unwrap();
    }
    assert!(ours.unsent() < 2000, "{}", ours.unsent());
    timeout(PATIENCE, near.readable()).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_end_without_close_notify_is_an_error() {
    let parts = parts(&[&version::TLS13]);
    let (mut theirs, mut ours) = with_their_client(&parts).await;
    theirs.write_all(b"half a story").await.unwrap();
    theirs.get_mut().0.shutdown().await.unwrap();
    let mut read = Vec::new();
    let error = timeout(PATIENCE, ours.read_to_end(&mut read))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert_eq!(read, b"half a story");
}

#[tokio::test]
async fn a_record_that_was_changed_ends_the_connection_with_an_alert() {
    let parts = parts(&[&version::TLS13]);
    let (mut theirs, mut ours) = with_their_client(&parts).await;
    // A record of application data that no key has made.
    let forged = [&[23, 3, 3, 0, 40][..], &[7; 40]].concat();
    theirs.get_mut().0.write_all(&forged).await.unwrap();
    let error = timeout(PATIENCE, ours.read(&mut [0; 10]))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_eq!(
        error.get_ref().unwrap().downcast_ref(),
        Some(&rustls::Error::DecryptError)
    );
    // bad_record_mac, without another word of whoever owns the stream.
    let told = timeout(PATIENCE, theirs.read(&mut [0; 10]))
        .await
        .unwrap()
        .unwrap_err();
    assert!(told.to_string().contains("BadRecordMac"), "{told}");
}

#[tokio::test]
async fn who_does_not_speak_tls_is_told_by_an_alert_and_handed_back() {
    let parts = parts(&[&version::TLS13]);
    let (mut near, far) = sockets().await;
    near.write_all(&[22, 3, 1, 0, 5, 99, 0, 0, 1, 0])
        .await
        .unwrap();
    let (error, _tcp) = timeout(PATIENCE, answer(&parts, far))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    let mut alert = [0; 2];
    near.read_exact(&mut alert).await.unwrap();
    assert_eq!(alert[0], 21, "an alert record (RFC 8446 5.1)");
}

/// A writer may leave one chunk behind in TLS, not more: what a slow reader costs is bounded.
#[tokio::test]
async fn a_reader_that_takes_nothing_is_not_written_for() {
    let parts = parts(&[&version::TLS13]);
    let (theirs, mut ours) = with_their_client(&parts).await;
    let bytes = random(50_000_000);
    let sent = timeout(Duration::from_millis(300), ours.write_all(&bytes)).await;
    assert!(sent.is_err(), "a socket took 50 MB that nobody reads");
    let held = ours.unsent();
    assert!(held > 0 && held < super::CHUNK + 1024, "{held} bytes");
    drop(theirs);
}

/// A broker's tickets come in fragments and slowly, and its client writes all the while: rustls keeps places in the bytes of
/// a message that has come in part.
#[tokio::test]
async fn a_message_that_came_in_part_does_not_disturb_what_is_written() {
    let parts = parts(&[&version::TLS13]);
    let mut server = (*parts.server).clone();
    server.max_fragment_size = Some(32);
    let (near, middle_near) = sockets().await;
    let (middle_far, far) = sockets().await;
    let (near_read, near_write) = middle_near.into_split();
    let (far_read, far_write) = middle_far.into_split();
    let up = tokio::spawn(drip(near_read, far_write));
    let down = tokio::spawn(drip(far_read, near_write));
    let (ours, theirs) = tokio::join!(
        connect(Arc::clone(&parts.client), name(), near),
        tokio_rustls::TlsAcceptor::from(Arc::new(server)).accept(far)
    );
    let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
    let writing = async {
        let mut came_in_part = 0;
        for _ in 0..400 {
            let mut none = [0; 1];
            let read = poll_fn(|cx| {
                Poll::Ready(Pin::new(&mut ours).poll_read(cx, &mut ReadBuf::new(&mut none)))
            });
            assert!(read.await.is_pending());
            came_in_part += usize::from(!ours.incoming.is_empty());
            ours.write_all(b"x").await.unwrap();
            tokio::task::yield_now().await;
        }
        assert!(came_in_part > 0, "the tickets came at once");
        ours.shutdown().await.unwrap();
    };
    let reading = async {
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).await.unwrap();
        all
    };
    let (_, all) = timeout(PATIENCE, async { tokio::join!(writing, reading) })
        .await
        .unwrap();
    assert_eq!(all, [b'x'; 400]);
    drop((ours, theirs));
    up.await.unwrap();
    down.await.unwrap();
}

/// What was sent before a forged record cannot be taken back, and nothing more is sent.
#[tokio::test]
async fn a_broken_connection_writes_no_more() {
    let parts = parts(&[&version::TLS13]);
    let (mut theirs, mut ours) = with_their_client(&parts).await;
    let forged = [&[23, 3, 3, 0, 40][..], &[7; 40]].concat();
    theirs.get_mut().0.write_all(&forged).await.unwrap();
    ours.read(&mut [0; 10]).await.unwrap_err();
    let error = ours.write(b"more").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    ours.shutdown().await.unwrap();
}
