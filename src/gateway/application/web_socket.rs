//! A WebSocket of the application's own: the handshake passes through, and then its bytes do. Over HTTP/2 the client's
//! CONNECT (RFC 8441 5) becomes an upgrade at the application, whose 101 becomes a 200.

use std::future::poll_fn;
use std::task::Poll;

use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, request};
use http_body_util::{Either, Full};

use super::failure::Failure;
use super::link::Link;
use super::request::Outgoing;
use super::tunnel::Opened;
use super::{Answered, Application, Call, Links, headers, permit};
use crate::gateway::http::Body;
use crate::gateway::upgrade;
use crate::websocket::{derive_accept_key, generate_key};

/// What became of a handshake.
pub(in crate::gateway) enum Opening {
    /// The application answered something else, or nothing.
    Response(Response<Body>),
    /// The answer that accepts, and the connection that it is about.
    Opened(Response<Body>, Box<Opened>),
}

/// True when the request becomes a WebSocket if the application wants it. One with an `Upgrade` that is broken, or to
/// anything else, is a request like any other (RFC 9110 7.8).
pub(in crate::gateway) fn is_wanted<B>(request: &Request<B>) -> bool {
    if request.version() == Version::HTTP_2 {
        return upgrade::is_wanted(request);
    }
    let headers = request.headers();
    // SECURITY: what stands behind the head of an upgrade must not be taken for a body by one side and not by the other.
    let has_body = headers.contains_key(TRANSFER_ENCODING)
        || headers
            .get(CONTENT_LENGTH)
            .is_some_and(|length| length != "0");
    request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && !has_body
        && upgrade::has_token(headers, &UPGRADE, "websocket")
        && upgrade::has_token(headers, &CONNECTION, "upgrade")
}

impl Application {
    pub(in crate::gateway) async fn open(&self, call: Call<'_>, head: request::Parts) -> Opening {
        match self.try_to_open(call, head).await {
            Ok(opening) => opening,
            Err(failure) => Opening::Response(self.refuse(&call, &failure)),
        }
    }

    async fn try_to_open(&self, call: Call<'_>, head: request::Parts) -> Result<Opening, Failure> {
        self.check(&head)?;
        let version = head.version;
        let permit = permit(&call, version)?;
        let own_key = (version == Version::HTTP_2).then(generate_key);
        let outgoing = Outgoing::empty();
        let upload = outgoing.upload();
        let (mut request, client) = self.request(&call, head, outgoing);
        headers::ask_for_web_socket(request.headers_mut(), own_key.as_deref());
        let key = request.headers().get(SEC_WEBSOCKET_KEY);
        let accept = key.map(|key| derive_accept_key(key.as_bytes()));
        let answered = self
            .ask_one(&call, client, request, &upload, Links::New)
            .await?;
        let status = answered.response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            // RFC 8441 5: a 2xx is what accepts there.
            if version == Version::HTTP_2 && status.is_success() {
                return Err(Failure::NotAccepted(status));
            }
            return Ok(Opening::Response(
                self.answer(&call, answered, upload, permit).await,
            ));
        }
        if !accepts(answered.response.headers(), accept.as_deref()) {
            return Err(Failure::WrongHandshake);
        }
        let Answered {
            seat,
            mut link,
            response,
            own_host,
            ..
        } = answered;
        let (head, _nothing) = response.into_parts();
        let mut response = Response::new(Either::Left(Full::default()));
        *response.headers_mut() = head.headers;
        self.rewrite(&call, response.headers_mut(), own_host.as_deref());
        headers::accept_web_socket(response.headers_mut(), version);
        *response.status_mut() = match version {
            Version::HTTP_2 => StatusCode::OK,
            _ => StatusCode::SWITCHING_PROTOCOLS,
        };
        end_http(&mut link).await;
        let (stream, early) = link.into_stream();
        let opened = Opened {
            stream,
            early,
            web_socket: self.reporter.web_socket(),
            reporter: self.reporter.clone(),
            seat,
            permit,
        };
        Ok(Opening::Opened(response, Box::new(opened)))
    }
}

/// The 101 was read, so nothing is waited for.
async fn end_http(link: &mut Link) {
    poll_fn(|cx| {
        link.poll(cx);
        match link.is_over() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

/// The server has read the key (RFC 6455 4.1), and speaks WebSocket from here on.
fn accepts(headers: &HeaderMap, accept: Option<&str>) -> bool {
    let told = headers.get(SEC_WEBSOCKET_ACCEPT);
    let told = told.and_then(|told| told.to_str().ok());
    upgrade::has_token(headers, &UPGRADE, "websocket")
        && accept.is_some()
        && told.map(str::trim) == accept
}
