//! MQTT packets as bytes, written out by hand: the tests do not trust the code under test to make them.

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let low = u8::try_from(length & 0x7f).unwrap();
        length >>= 7;
        bytes.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

fn counted(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// MQTT 3.1.1, clean session.
pub fn connect(client_id: &str, keepalive: u16) -> Vec<u8> {
    let mut body = counted("MQTT");
    body.extend_from_slice(&[4, 2]);
    body.extend_from_slice(&keepalive.to_be_bytes());
    body.extend_from_slice(&counted(client_id));
    packet(0x10, &body)
}

/// MQTT 3.1.1, clean session, with a user name and perhaps a password.
pub fn connect_as(client_id: &str, keepalive: u16, user: &str, password: Option<&str>) -> Vec<u8> {
    let mut body = counted("MQTT");
    body.extend_from_slice(&[4, if password.is_some() { 0xc2 } else { 0x82 }]);
    body.extend_from_slice(&keepalive.to_be_bytes());
    body.extend_from_slice(&counted(client_id));
    body.extend_from_slice(&counted(user));
    body.extend_from_slice(&password.map(counted).unwrap_or_default());
    packet(0x10, &body)
}

/// MQTT 5, clean start, no properties.
pub fn connect_v5(client_id: &str, keepalive: u16) -> Vec<u8> {
    let mut body = counted("MQTT");
    body.extend_from_slice(&[5, 2]);
    body.extend_from_slice(&keepalive.to_be_bytes());
    body.push(0);
    body.extend_from_slice(&counted(client_id));
    packet(0x10, &body)
}

/// QoS 0.
pub fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = counted(topic);
    body.extend_from_slice(payload);
    packet(0x30, &body)
}

/// MQTT 3.x.
pub fn connack(code: u8) -> Vec<u8> {
    vec![0x20, 2, 0, code]
}

pub fn connack_v5(code: u8) -> Vec<u8> {
    vec![0x20, 3, 0, code, 0]
}

pub const PINGREQ: [u8; 2] = [0xc0, 0];
pub const PINGRESP: [u8; 2] = [0xd0, 0];
pub const DISCONNECT: [u8; 2] = [0xe0, 0];

/// With a Will of QoS 1 that is not retained.
pub fn connect_with_will(client_id: &str, topic: &str) -> Vec<u8> {
    let mut body = counted("MQTT");
    body.extend_from_slice(&[4, 0b0000_1110, 0, 60]);
    for text in [client_id, topic, "gone"] {
        body.extend_from_slice(&counted(text));
    }
    packet(0x10, &body)
}

/// The same with a Will Delay Interval, and a session that outlives it (MQTT 5 3.1.2.11.2, 3.1.3.2.2).
pub fn connect_v5_with_will(client_id: &str, topic: &str, delay: u32) -> Vec<u8> {
    let mut body = counted("MQTT");
    body.extend_from_slice(&[5, 0b0000_1110, 0, 60]);
    body.extend_from_slice(&[5, 0x11]);
    body.extend_from_slice(&(delay * 2).to_be_bytes());
    body.extend_from_slice(&counted(client_id));
    body.extend_from_slice(&[5, 0x18]);
    body.extend_from_slice(&delay.to_be_bytes());
    for text in [topic, "gone"] {
        body.extend_from_slice(&counted(text));
    }
    packet(0x10, &body)
}

/// SUBSCRIBE with QoS 1.
pub fn subscribe(filter: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    body.extend_from_slice(&counted(filter));
    body.push(1);
    packet(0x82, &body)
}
