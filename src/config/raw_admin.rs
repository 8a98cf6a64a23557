//! The value of `admin`: `off`, or a mapping. Written by hand because derived alternatives lose the reason of a fault.

use std::borrow::Cow;
use std::net::{Ipv4Addr, SocketAddr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::names::{Address, HostPattern};

#[derive(Debug)]
pub(super) enum Admin {
    Off,
    At(AdminListener),
}

/// The operator's listener.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AdminListener {
    /// IP address and port. In a container: `0.0.0.0:9090`, where the probes come from outside it.
    pub address: Address,
    /// Names that it may be asked by, exact or with one wildcard label. Addresses and names that the public DNS cannot have
    /// (`tidegate`, `localhost`, below `.svc`, `.local`, `.internal`) are always right: what comes by another name may be a web page that
    /// has pointed its own name here.
    pub hosts: Vec<HostPattern>,
}

impl Default for AdminListener {
    fn default() -> Self {
        Self {
            address: Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 9090))),
            hosts: Vec::new(),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self::At(AdminListener::default())
    }
}

impl<'de> Deserialize<'de> for Admin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if value == "off" {
            return Ok(Self::Off);
        }
        serde_json::from_value(value)
            .map(Self::At)
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for Admin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::At(listener) => listener.serialize(serializer),
        }
    }
}

impl JsonSchema for Admin {
    fn schema_name() -> Cow<'static, str> {
        "Admin".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": "off" }, generator.subschema_for::<AdminListener>()] })
    }
}
