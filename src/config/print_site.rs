//! A site of the effective configuration.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::model::{CacheRule, Cors, Moved, Redirect, Site};
use super::values::{Size, Span};

pub(super) fn site(site: &Site) -> Value {
    json!({
        "root": site.root,
        "index": site.index,
        "fallback": site.fallback,
        "not_found": site.not_found,
        "error_pages": error_pages(&site.error_pages),
        "dot_files": site.dot_files,
        "symlinks": site.symlinks,
        "cache_control": setting(&site.cache_control),
        "cache": site.cache.iter().map(cache_rule).collect::<Value>(),
        "compress": site.compress,
        "memory": Size(site.memory).to_string(),
        "headers": headers(&site.headers),
        "redirects": site.redirects.iter().map(moved).collect::<Value>(),
        "cors": site.cors.as_ref().map(cors),
    })
}

fn error_pages(pages: &BTreeMap<u16, String>) -> Value {
    let pages = pages.iter();
    let pages = pages.map(|(status, file)| (status.to_string(), json!(file)));
    Value::Object(pages.collect())
}

fn cache_rule(rule: &CacheRule) -> Value {
    json!({ "files": rule.files, "value": setting(&rule.value) })
}

fn moved(moved: &Moved) -> Value {
    let Redirect { to, status } = &moved.redirect;
    json!({ "from": moved.from, "to": to, "status": status })
}

fn headers(headers: &BTreeMap<String, Option<String>>) -> Value {
    let headers = headers.iter();
    let headers = headers.map(|(name, value)| (name.clone(), setting(value)));
    Value::Object(headers.collect())
}

/// None is written as nothing.
fn setting(value: &Option<String>) -> Value {
    json!(value.as_deref().unwrap_or_default())
}

fn cors(cors: &Cors) -> Value {
    json!({
        "origins": texts(&cors.origins.0),
        "headers": cors.headers,
        "expose": cors.expose,
        "max_age": Span(cors.max_age).to_string(),
        "credentials": cors.credentials,
    })
}

/// Each as it is written in the file.
pub(super) fn texts(values: &[impl ToString]) -> Value {
    values
        .iter()
        .map(|value| json!(value.to_string()))
        .collect()
}
