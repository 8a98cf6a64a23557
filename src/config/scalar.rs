//! Gives every value with its own syntax its serde and JSON Schema sides, both resting on its `FromStr`.
//!
//! The schema's `format` names the syntax; `reader` finds the function that knows it, so that the walk over the
//! file can report a bad value at its place before anything is deserialized.

use std::borrow::Cow;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::acme_values::{Directory, DomainName, Email};
use super::application_url::ApplicationUrl;
use super::broker_url::BrokerUrl;
use super::names::{
    Address, FilePath, FilePattern, HeaderName, HeaderSetting, HeaderValue, HostPattern, Label,
    LogFilter, MovedPath, RedirectTarget, RoutePath, ServerName, SitePath, Token,
};
use super::networks::Network;
use super::origins::Origin;
use super::probe_values::{MqttText, ProbeUrl, Secret};
use super::raw_announcement::{BrokerPath, SourceAddress};
use super::raw_applications::ApplicationPath;
use super::values::{Count, Fault, Size, Span};

/// Says whether a text is a value of one format.
pub(super) type Reader = fn(&str) -> Result<(), Fault>;

macro_rules! scalars {
    ($($type:ident, $format:literal, $kinds:tt, $example:literal;)*) => {
        $(
            impl<'de> Deserialize<'de> for $type {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                }
            }

            impl Serialize for $type {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.collect_str(self)
                }
            }

            impl JsonSchema for $type {
                fn inline_schema() -> bool {
                    true
                }

                fn schema_name() -> Cow<'static, str> {
                    stringify!($type).into()
                }

                fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
                    json_schema!({ "type": $kinds, "format": $format, "examples": [$example] })
                }
            }
        )*

        /// The function that reads values of this `format`.
        pub(super) fn reader(format: &str) -> Option<Reader> {
            match format {
                $($format => Some(|text| $type::from_str(text).map(|_value| ())),)*
                _ => None,
            }
        }
    };
}

scalars! {
    Span, "duration", "string", "10s";
    Size, "size", ["string", "integer"], "64KiB";
    Count, "count", ["string", "integer"], "auto";
    Address, "address", "string", "[::]:443";
    HostPattern, "host", "string", "example.com";
    RoutePath, "path", "string", "/mqtt";
    RedirectTarget, "redirect", "string", "https://example.com{path}";
    HeaderValue, "header value", "string", "no-cache";
    HeaderSetting, "header value or nothing", "string", "no-cache";
    FilePattern, "file pattern", "string", "assets/**";
    MovedPath, "path to redirect", "string", "/blog/*";
    HeaderName, "header name", "string", "authorization";
    Token, "token", "string", "mqtt";
    FilePath, "file", "string", "certs/example.com.pem";
    SitePath, "site file", "string", "index.html";
    ServerName, "server name", "string", "emqx.internal";
    LogFilter, "log level", "string", "info";
    Label, "name", "string", "public";
    DomainName, "DNS name", "string", "example.com";
    Email, "e-mail address", "string", "ops@example.com";
    Directory, "ACME directory", "string", "letsencrypt";
    BrokerPath, "broker path", "string", "/mqtt";
    SourceAddress, "IP address", "string", "10.0.0.5";
    Network, "network", "string", "10.0.0.0/8";
    Origin, "origin", "string", "https://example.com";
    BrokerUrl, "broker URL", "string", "ws://10.10.1.1:8083/mqtt";
    ApplicationUrl, "application URL", "string", "http://127.0.0.1:3000";
    ApplicationPath, "application path", "string", "strip";
    ProbeUrl, "probe URL", "string", "http://{host}:18083/api/v5/load_rebalance/availability_check";
    MqttText, "text", "string", "tidegate-probe-";
    Secret, "secret", "string", "${file:/run/secrets/probe}";
}

/// What takes the place of a bad value of this `format` while the rest is checked: it clashes with no real one.
pub(super) fn stand_in(format: &str) -> &'static str {
    match format {
        "duration" => "1s",
        "size" => "64KiB",
        "count" => "auto",
        "address" => "127.0.0.1:0",
        "network" => "192.0.2.0/24",
        "path" | "broker path" | "application path" | "path to redirect" => "/stand-in",
        "IP address" => "127.0.0.1",
        "redirect" => "/stand-in",
        "host" | "server name" | "DNS name" => "stand-in.invalid",
        "origin" => "https://stand-in.invalid",
        "log level" => "info",
        "e-mail address" => "stand-in@stand-in.invalid",
        "ACME directory" => "https://stand-in.invalid/",
        "broker URL" => "ws://stand-in.invalid",
        "application URL" => "http://stand-in.invalid",
        "probe URL" => "http://stand-in.invalid/",
        _text => "stand-in",
    }
}
