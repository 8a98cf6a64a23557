//! Which web pages may open WebSockets here (RFC 6455 10.2), by the `Origin` that their browser sends.
//!
//! SECURITY: it holds off pages, not programs: only a browser cannot be made to lie. It is asked before anything else is
//! done with the request, for MQTT and for whatever else is reached by WebSocket.

use http::Request;
use http::header::ORIGIN;

use crate::config::model::OriginPolicy;
use crate::config::origins::Asked;

/// More of a name is of no use to anyone.
const QUOTED: usize = 200;

/// Says why the page that asks is not let in: one sentence for whoever looks into the browser's network panel.
pub(super) fn refused<B>(
    policy: &OriginPolicy,
    request: &Request<B>,
    asked: Asked<'_>,
) -> Option<String> {
    let allowed = policy.allowed.as_ref()?;
    let mut origins = request.headers().get_all(ORIGIN).iter();
    let (origin, another) = (origins.next(), origins.next());
    let Some(origin) = origin else {
        return policy.required.then(|| {
            "The request has no Origin, and `require_origin` of this route asks for one.".to_owned()
        });
    };
    if another.is_some() {
        return Some("The request has more than one Origin (RFC 6454 7.3).".to_owned());
    }
    let is_allowed = |text| allowed.contains(text, Some(asked));
    if origin.to_str().is_ok_and(is_allowed) {
        return None;
    }
    let shown: String = String::from_utf8_lossy(origin.as_bytes())
        .chars()
        .take(QUOTED)
        .filter(|character| !character.is_control())
        .collect();
    Some(format!(
        "The origin {shown} is not among the `origins` of this route."
    ))
}
