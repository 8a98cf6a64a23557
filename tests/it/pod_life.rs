//! What a kubelet sees of a gateway: started before its broker, the broker gone, drained, stopped. The probes are those of
//! deploy/kubernetes; a Unix socket stands for the broker, since its address is known before there is one.

use std::path::Path;

use futures_util::{SinkExt, StreamExt};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tungstenite::Message;

use crate::support::program::Program;
use crate::support::{PATIENCE, eventually, packets};

/// The answers of `/startupz`, `/livez` and `/readyz`.
async fn probes(program: &Program) -> [u16; 3] {
    let [mut startup, mut live, mut ready] = [0; 3];
    for (path, status) in [
        ("/startupz", &mut startup),
        ("/livez", &mut live),
        ("/readyz", &mut ready),
    ] {
        *status = program.admin.get(path).await.0;
    }
    [startup, live, ready]
}

/// The code of the CONNACK that a client of MQTT 3.1.1 gets, and its connection.
async fn connack(program: &Program) -> (u8, impl Sized + use<>) {
    let address = program.address(0);
    let stream = TcpStream::connect(address).await.unwrap();
    let opening = tokio_tungstenite::client_async(format!("ws://{address}/mqtt"), stream);
    let (mut socket, _) = Box::pin(opening).await.unwrap();
    let connect = Message::binary(packets::connect("phone", 60));
    socket.send(connect).await.unwrap();
    match socket.next().await {
        Some(Ok(Message::Binary(answer))) => (answer[3], socket),
        other => panic!("{other:?} instead of CONNACK"),
    }
}

/// Takes one session.
async fn welcomed(broker: &UnixListener) -> UnixStream {
    let (mut session, _) = broker.accept().await.unwrap();
    let mut connect = [0; 256];
    assert!(session.read(&mut connect).await.unwrap() > 0);
    session.write_all(&packets::connack(0)).await.unwrap();
    session
}

fn bound(path: &Path) -> UnixListener {
    UnixListener::bind(path).unwrap()
}

#[tokio::test]
async fn a_pod_starts_before_its_broker_outlives_it_drains_and_stops() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("broker");
    let program = Program::run(&format!(
        "listeners: [{{ address: \"127.0.0.1:0\", plain: routes }}]\n\
         routes: [{{path: /mqtt, pool: brokers}}]\n\
         pools: {{brokers: {{brokers: [{{url: \"unix+mqtt://{}\"}}]}}}}\n\
         drain: {{ announce: 2s, rate: 100 }}\n",
        path.display()
    ))
    .await;
    // The next container of a pod is started once this probe succeeds: the broker, behind a sidecar.
    assert_eq!(probes(&program).await, [200, 200, 200], "before the broker");
    assert_eq!(connack(&program).await.0, 3, "server unavailable");

    let broker = bound(&path);
    let ((code, client), session) = tokio::join!(connack(&program), welcomed(&broker));
    assert_eq!(code, 0);
    assert_eq!(probes(&program).await, [200, 200, 200]);

    drop((broker, session, client));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(connack(&program).await.0, 3);
    // A broker that is gone must neither restart the pod nor take the site and its siblings out of the Service.
    assert_eq!(probes(&program).await, [200, 200, 200], "the broker gone");

    let broker = bound(&path);
    let ((code, _client), _session) = tokio::join!(connack(&program), welcomed(&broker));
    assert_eq!(code, 0);
    program.process.signal("TERM");
    let unready = eventually(async || probes(&program).await == [200, 200, 503]);
    assert!(unready.await, "announced to the endpoints");
    let late = TcpStream::connect(program.address(0)).await;
    assert!(late.is_ok(), "who has not heard of it yet is still served");
    drop(late);
    let ended = program.process.finish(PATIENCE).await;
    assert_eq!(ended.status.code(), Some(0));
}
