//! Pages of other origins that may read the files: CORS, Fetch standard 3.3.

use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, InvalidHeaderValue, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};

use crate::config::model;
use crate::config::origins::Origins;

/// All that a page can ask of a site.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD");

/// Who may read, and what they are told.
#[derive(Debug)]
pub(super) struct Cors {
    origins: Origins,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
    credentials: bool,
}

impl Cors {
    pub(super) fn new(cors: &model::Cors) -> Result<Self, InvalidHeaderValue> {
        let list = |names: &[String]| {
            let set = (!names.is_empty()).then(|| HeaderValue::try_from(names.join(", ")));
            set.transpose()
        };
        Ok(Self {
            origins: cors.origins.clone(),
            headers: list(&cors.headers)?,
            expose: list(&cors.expose)?,
            max_age: seconds(cors.max_age),
            credentials: cors.credentials,
        })
    }

    /// Adds to the answer what the browser of an allowed page looks for. A page that is not allowed is told nothing: its
    /// browser keeps the answer from it.
    pub(super) fn add_headers(&self, request: &Parts, answer: &mut HeaderMap) {
        let anyone = self.origins.is_any() && !self.credentials;
        if !anyone {
            // Without `Origin` too: a cache must not give that answer to a page.
            let varies = match answer.contains_key(VARY) {
                true => "Accept-Encoding, Origin",
                false => "Origin",
            };
            answer.insert(VARY, HeaderValue::from_static(varies));
        }
        let Some(origin) = request.headers.get(ORIGIN) else {
            return;
        };
        let allowed = origin
            .to_str()
            .is_ok_and(|text| self.origins.contains(text, None));
        if !allowed {
            return;
        }
        let origin = match anyone {
            true => HeaderValue::from_static("*"),
            false => origin.clone(),
        };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            let yes = HeaderValue::from_static("true");
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        if is_preflight(request) {
            answer.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            answer.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
            if let Some(headers) = &self.headers {
                answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
            }
        } else if let Some(expose) = &self.expose {
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }
}

/// A browser asks whether it may ask (Fetch standard 3.3.2).
fn is_preflight(request: &Parts) -> bool {
    request.method == Method::OPTIONS && request.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn seconds(span: Duration) -> HeaderValue {
    HeaderValue::from(span.as_secs())
}
