//! CONNECT with another client id or user name (MQTT 3.1), for clients whose certificate says who they are.
//!
//! Every other byte stays as the client sent it: flags but one, keepalive, properties, Will, password.

use super::connect::skip_properties;
use super::{Connect, Fields, Version};

/// What is to stand in CONNECT; `None` keeps the client's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NewNames<'a> {
    pub client_id: Option<&'a str>,
    pub user_name: Option<&'a str>,
}

/// The flag that announces a user name (MQTT 3.1.2.8).
const USER_NAME: u8 = 0x80;
const WILL: u8 = 0x04;

impl NewNames<'_> {
    /// The packet with these names. A client's user name is replaced or, where it sent none, added; a password that stands
    /// without a user name, as MQTT 5 allows, then stands behind one. `None` when a name is too long for MQTT or `packet`
    /// is not what `Connect::read` accepted.
    pub fn rewrite(&self, packet: &[u8], connect: &Connect<'_>) -> Option<Vec<u8>> {
        let start = 1 + packet.iter().skip(1).position(|byte| byte & 0x80 == 0)? + 1;
        let body = packet.get(start..)?;
        let cuts = Cuts::of(body, connect.version)?;
        let mut flags = body[cuts.flags];
        if self.user_name.is_some() {
            flags |= USER_NAME;
        }
        let longest =
            body.len() + self.client_id.map_or(0, str::len) + self.user_name.map_or(0, str::len);
        let mut changed = Vec::with_capacity(longest + 4);
        changed.extend_from_slice(&body[..cuts.flags]);
        changed.push(flags);
        changed.extend_from_slice(&body[cuts.flags + 1..cuts.id.0]);
        write_name(&mut changed, self.client_id, &body[cuts.id.0..cuts.id.1])?;
        changed.extend_from_slice(&body[cuts.id.1..cuts.user.0]);
        write_name(
            &mut changed,
            self.user_name,
            &body[cuts.user.0..cuts.user.1],
        )?;
        changed.extend_from_slice(&body[cuts.user.1..]);

        let mut written = Vec::with_capacity(changed.len() + 5);
        written.push(packet[0]);
        write_length(&mut written, changed.len())?;
        written.append(&mut changed);
        Some(written)
    }
}

/// Where the fields that may change stand in the body, with their two bytes of length.
struct Cuts {
    flags: usize,
    id: (usize, usize),
    /// Empty where the client sent none.
    user: (usize, usize),
}

impl Cuts {
    fn of(body: &[u8], version: Version) -> Option<Self> {
        let mut fields = Fields { rest: body };
        let at = |fields: &Fields<'_>| body.len() - fields.rest.len();
        fields.counted()?;
        let _level = fields.byte()?;
        let flags_at = at(&fields);
        let flags = fields.byte()?;
        let _keepalive = fields.two_bytes()?;
        skip_properties(&mut fields, version).ok()?;
        let id_at = at(&fields);
        fields.counted()?;
        let id = (id_at, at(&fields));
        if flags & WILL != 0 {
            skip_properties(&mut fields, version).ok()?;
            fields.counted()?;
            fields.counted()?;
        }
        let user_at = at(&fields);
        if flags & USER_NAME != 0 {
            fields.counted()?;
        }
        Some(Self {
            flags: flags_at,
            id,
            user: (user_at, at(&fields)),
        })
    }
}

/// `old` is the field as it stands, which may be nothing.
fn write_name(body: &mut Vec<u8>, new: Option<&str>, old: &[u8]) -> Option<()> {
    match new {
        None => body.extend_from_slice(old),
        Some(name) => {
            body.extend_from_slice(&u16::try_from(name.len()).ok()?.to_be_bytes());
            body.extend_from_slice(name.as_bytes());
        }
    }
    Some(())
}

/// Variable byte integer (MQTT 5 1.5.5).
fn write_length(packet: &mut Vec<u8>, length: usize) -> Option<()> {
    /// What four bytes of seven bits hold.
    const LONGEST: usize = (1 << 28) - 1;
    let mut rest = u32::try_from(length).ok().filter(|_| length <= LONGEST)?;
    loop {
        let [low, ..] = (rest & 0x7f).to_le_bytes();
        rest >>= 7;
        packet.push(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            return Some(());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All fields of a CONNECT, as a client may combine them.
    #[derive(Debug, Clone)]
    struct Packet {
        version: Version,
        level_bit: u8,
        clean: bool,
        keepalive: u16,
        properties: Vec<u8>,
        id: String,
        will: Option<(Vec<u8>, String, Vec<u8>, u8)>,
        user: Option<String>,
        password: Option<Vec<u8>>,
    }

    impl Packet {
        fn write(&self) -> Vec<u8> {
            let (name, level) = match self.version {
                Version::V31 => ("MQIsdp", 3),
                Version::V311 => ("MQTT", 4),
                Version::V5 => ("MQTT", 5),
            };
            let mut body = Vec::new();
            counted(&mut body, name.as_bytes());
            body.push(level | self.level_bit);
            let mut flags = u8::from(self.clean) << 1;
            flags |= self.will.as_ref().map_or(0, |will| 0x04 | will.3);
            flags |= u8::from(self.user.is_some()) << 7 | u8::from(self.password.is_some()) << 6;
            body.push(flags);
            body.extend_from_slice(&self.keepalive.to_be_bytes());
            self.properties(&mut body, &self.properties);
            counted(&mut body, self.id.as_bytes());
            if let Some((properties, topic, payload, _)) = &self.will {
                self.properties(&mut body, properties);
                counted(&mut body, topic.as_bytes());
                counted(&mut body, payload);
            }
            if let Some(user) = &self.user {
                counted(&mut body, user.as_bytes());
            }
            if let Some(password) = &self.password {
                counted(&mut body, password);
            }
            let mut packet = vec![0x10];
            write_length(&mut packet, body.len()).unwrap();
            packet.extend_from_slice(&body);
            packet
        }

        fn properties(&self, body: &mut Vec<u8>, properties: &[u8]) {
            if self.version == Version::V5 {
                write_length(body, properties.len()).unwrap();
                body.extend_from_slice(properties);
            }
        }
    }

    fn counted(body: &mut Vec<u8>, bytes: &[u8]) {
        body.extend_from_slice(&u16::try_from(bytes.len()).unwrap().to_be_bytes());
        body.extend_from_slice(bytes);
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..200)
    }

    fn text() -> impl Strategy<Value = String> {
        "[a-zé日]{0,80}"
    }

    prop_compose! {
        fn packets()(
            version in prop::sample::select(vec![Version::V31, Version::V311, Version::V5]),
            bridge in any::<bool>(),
            clean in any::<bool>(),
            keepalive in any::<u16>(),
            properties in bytes(),
            id in text(),
            will in prop::option::of((bytes(), text(), bytes(), prop::sample::select(vec![0, 0x08, 0x10, 0x20, 0x30]))),
            user in prop::option::of(text()),
            password in prop::option::of(bytes()),
        ) -> Packet {
            // MQTT 3 has no password without a user name.
            let password = password.filter(|_| user.is_some() || version == Version::V5);
            Packet { version, level_bit: u8::from(bridge) << 7, clean, keepalive, properties, id, will, user, password }
        }
    }

    proptest! {
        #[test]
        fn only_the_names_change(packet in packets(), id in prop::option::of(text()), user in prop::option::of(text())) {
            let bytes = packet.write();
            let connect = Connect::read(&bytes, usize::MAX).unwrap();
            let names = NewNames { client_id: id.as_deref(), user_name: user.as_deref() };
            let expected = Packet {
                id: id.clone().unwrap_or_else(|| packet.id.clone()),
                user: user.clone().or_else(|| packet.user.clone()),
                ..packet
            };
            let written = names.rewrite(&bytes, &connect).unwrap();
            prop_assert_eq!(&written, &expected.write());
            prop_assert!(Connect::read(&written, usize::MAX).is_ok());
        }

        #[test]
        fn nothing_panics_on_what_is_not_a_connect(bytes in bytes(), packet in packets()) {
            let sound = packet.write();
            let connect = Connect::read(&sound, usize::MAX).unwrap();
            let _written = NewNames { client_id: Some("a"), user_name: Some("b") }.rewrite(&bytes, &connect);
        }
    }

    #[test]
    fn a_name_longer_than_mqtt_can_carry_is_refused() {
        let packet = b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02id";
        let connect = Connect::read(packet, 23).unwrap();
        let long = "x".repeat(65_536);
        let names = NewNames {
            user_name: Some(&long),
            ..NewNames::default()
        };
        assert_eq!(names.rewrite(packet, &connect), None);
    }
}
