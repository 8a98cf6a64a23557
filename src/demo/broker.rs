//! A complete MQTT broker inside the process, so that the demo needs nothing else on the machine.
//! Promises: one TCP port on loopback chosen by the system and no other port; MQTT 3.1, 3.1.1 and 5; anyone may enter;
//! nothing is written to disk; it is gone, with all its sessions, when `DemoBroker` is dropped.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use rmqtt::context::ServerContext;
use rmqtt::net::{Builder, Listener};
use rmqtt::retain::{DefaultRetainStorage, RetainStorage};
use rmqtt::server::MqttServer;
use rmqtt::types::{Retain, TopicFilter, TopicName};
use tokio::runtime;
use tokio::sync::oneshot;

/// Large enough to show a big payload crossing the gateway, small enough for a laptop: this broker holds packets whole.
const MAX_PACKET: u32 = 16 * 1024 * 1024;

/// Messages without an expiry of their own, retained ones too, are kept this long: longer than any demo.
const MESSAGE_EXPIRY: Duration = Duration::from_secs(24 * 60 * 60);

/// Topic aliases a client may use, as many as mosquitto allows unless set.
const TOPIC_ALIASES: u16 = 10;

/// Workers per task queue. The default, 2000, is meant for a server; a demo has a handful of clients.
const TASK_WORKERS: usize = 32;

/// The running broker; dropping it stops it.
pub struct DemoBroker {
    /// Where it takes MQTT over plain TCP.
    pub address: SocketAddr,
    /// The broker's thread ends when this goes away.
    _stop: oneshot::Sender<()>,
}

impl DemoBroker {
    /// Starts the broker on a thread and a runtime of its own and returns once its port takes connections, which is a
    /// matter of milliseconds. May be called inside another runtime.
    pub fn start() -> Result<Self> {
        let (started, has_started) = sync_channel(1);
        let (stop, stopped) = oneshot::channel();
        thread::Builder::new()
            .name("demo-broker".into())
            .spawn(move || run(&started, stopped))
            .context("the demo broker's thread cannot be started")?;
        let address = has_started
            .recv()
            .context("the demo broker ended before it listened")??;
        Ok(Self {
            address,
            _stop: stop,
        })
    }
}

/// The broker's thread: serves until told to stop; whatever is still connected goes with the runtime.
fn run(started: &SyncSender<Result<SocketAddr>>, stopped: oneshot::Receiver<()>) {
    let report = |answer| started.send(answer).unwrap_or_default();
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            return report(Err(source).context("the demo broker's runtime cannot be started"));
        }
    };
    runtime.block_on(async {
        let (server, address) = match prepare().await {
            Ok(prepared) => prepared,
            Err(source) => return report(Err(source)),
        };
        report(Ok(address));
        // CANCEL: losing the server is the point: nobody needs its state after the stop.
        tokio::select! {
            _ = server.run() => {}
            _ = stopped => {}
        }
    });
    runtime.shutdown_background();
}

async fn prepare() -> Result<(MqttServer, SocketAddr)> {
    let context = ServerContext::new()
        .busy_check_enable(false) // it would turn clients away because the machine is busy with something else
        .task_exec_workers(TASK_WORKERS)
        .build()
        .await;
    *context.extends.retain_mut().await = Box::new(RetainedInMemory(DefaultRetainStorage::new()));
    let listener = listen().context("the demo broker cannot listen on loopback")?;
    let address = listener.local_addr()?;
    let server = MqttServer::new(context).listener_by_id(listener, address.port());
    Ok((server.build(), address))
}

fn listen() -> Result<Listener> {
    Builder::new()
        .name("demo")
        .laddr((Ipv4Addr::LOCALHOST, 0).into())
        .nodelay(true)
        .max_packet_size(MAX_PACKET)
        .message_expiry_interval(MESSAGE_EXPIRY)
        .max_topic_aliases(TOPIC_ALIASES)
        .bind()?
        .tcp()
}

/// rmqtt has the store for retained messages but leaves it switched off, for a plugin that keeps them on disk.
struct RetainedInMemory(DefaultRetainStorage);

#[async_trait]
impl RetainStorage for RetainedInMemory {
    fn enable(&self) -> bool {
        true
    }

    async fn set(&self, topic: &TopicName, retain: Retain, expiry: Option<Duration>) -> Result<()> {
        self.0.set_with_timeout(topic, retain, expiry).await
    }

    async fn get(&self, filter: &TopicFilter) -> Result<Vec<(TopicName, Retain)>> {
        self.0.get_message(filter).await
    }

    async fn count(&self) -> isize {
        self.0.count().await
    }

    async fn max(&self) -> isize {
        self.0.max().await
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Write};
    use std::net::TcpStream;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);
    const CONNACK_ACCEPTED: [u8; 4] = [0x20, 2, 0, 0];
    const PUBLISH_RETAINED_QOS1: u8 = 0x33;
    const PUBLISH_PLAIN: u8 = 0x30;

    struct Client(TcpStream);

    impl Client {
        fn dial(broker: &DemoBroker) -> Self {
            let stream = TcpStream::connect(broker.address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Self(stream)
        }

        /// A session of MQTT 3.1.1, with a will if one is given.
        fn enter(broker: &DemoBroker, name: &str, will: Option<(&str, &str)>) -> Self {
            let flags = if will.is_some() { 0x06 } else { 0x02 };
            let mut body = [b"\x00\x04MQTT\x04".as_slice(), &[flags, 0, 60]].concat();
            body.extend(text(name));
            for part in will.iter().flat_map(|(topic, payload)| [topic, payload]) {
                body.extend(text(part));
            }
            let mut client = Self::dial(broker);
            client.send(0x10, &body);
            assert_eq!(client.read::<4>(), CONNACK_ACCEPTED);
            client
        }

        fn send(&mut self, header: u8, body: &[u8]) {
            let length = u8::try_from(body.len()).unwrap();
            self.0
                .write_all(&[&[header, length], body].concat())
                .unwrap();
        }

        fn read<const N: usize>(&mut self) -> [u8; N] {
            let mut bytes = [0; N];
            self.0.read_exact(&mut bytes).unwrap();
            bytes
        }

        fn subscribe(&mut self, filter: &str, qos: u8) {
            self.send(0x82, &[[0, 9].as_slice(), &text(filter), &[qos]].concat());
            assert_eq!(self.read::<5>(), [0x90, 3, 0, 9, qos]);
        }

        fn publish(&mut self, header: u8, topic: &str, payload: &str) {
            let packet_id: &[u8] = if header & 0x06 == 0 { &[] } else { &[0, 7] };
            self.send(
                header,
                &[&text(topic), packet_id, payload.as_bytes()].concat(),
            );
        }

        /// Topic and payload of the next PUBLISH, and its flags, at QoS 0.
        fn receive(&mut self) -> (u8, String, String) {
            let [header, length] = self.read::<2>();
            let mut body = vec![0; usize::from(length)];
            self.0.read_exact(&mut body).unwrap();
            let topic_length = usize::from(body[1]);
            let payload = String::from_utf8(body.split_off(2 + topic_length)).unwrap();
            (
                header,
                String::from_utf8(body.split_off(2)).unwrap(),
                payload,
            )
        }
    }

    fn text(value: &str) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap();
        [&length.to_be_bytes(), value.as_bytes()].concat()
    }

    #[test]
    fn every_version_is_let_in_without_a_password() {
        let broker = DemoBroker::start().unwrap();
        for hello in [
            b"\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x02v3".as_slice(),
            b"\x00\x04MQTT\x04\x02\x00\x3c\x00\x02v4",
            b"\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x02v5",
        ] {
            let mut client = Client::dial(&broker);
            client.send(0x10, hello);
            let [kind, _length, present, code] = client.read::<4>();
            assert_eq!((kind, present, code), (0x20, 0, 0), "{hello:?}");
        }
    }

    #[test]
    fn it_listens_on_loopback_only() {
        let broker = DemoBroker::start().unwrap();
        assert!(broker.address.ip().is_loopback());
        assert_ne!(broker.address.port(), 0);
    }

    #[test]
    fn a_retained_message_is_kept_for_a_later_subscriber() {
        let broker = DemoBroker::start().unwrap();
        let mut giver = Client::enter(&broker, "giver", None);
        giver.publish(PUBLISH_RETAINED_QOS1, "tidegate/demo/kept", "still here");
        assert_eq!(giver.read::<4>(), [0x40, 2, 0, 7]);
        let mut taker = Client::enter(&broker, "taker", None);
        taker.subscribe("tidegate/demo/#", 0);
        let kept = (0x31, "tidegate/demo/kept".into(), "still here".into());
        assert_eq!(taker.receive(), kept);
    }

    #[test]
    fn the_will_of_a_vanished_client_is_published() {
        let broker = DemoBroker::start().unwrap();
        let mut heir = Client::enter(&broker, "heir", None);
        heir.subscribe("will/+", 0);
        drop(Client::enter(
            &broker,
            "gone",
            Some(("will/gone", "farewell")),
        ));
        let will = (PUBLISH_PLAIN, "will/gone".into(), "farewell".into());
        assert_eq!(heir.receive(), will);
    }

    #[test]
    fn qos_2_is_handed_over_exactly_once() {
        let broker = DemoBroker::start().unwrap();
        let mut client = Client::enter(&broker, "careful", None);
        client.publish(0x34, "once", "only");
        assert_eq!(client.read::<4>(), [0x50, 2, 0, 7]);
        client.send(0x62, &[0, 7]);
        assert_eq!(client.read::<4>(), [0x70, 2, 0, 7]);
    }

    #[test]
    fn dropping_it_ends_its_sessions() {
        let broker = DemoBroker::start().unwrap();
        let mut client = Client::enter(&broker, "left", None);
        drop(broker);
        // Closed in good order or cut: both are the end, running out of patience is not.
        let end = client.0.read(&mut [0]);
        let cut = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
        assert!(
            matches!(&end, Ok(0)) || end.as_ref().is_err_and(cut),
            "{end:?}"
        );
    }

    #[tokio::test]
    async fn it_starts_inside_a_runtime() {
        DemoBroker::start().unwrap();
    }
}
