//! Why a request to an application failed: one value decides the status, the sentence for the client, the label in the
//! metrics, and who is to blame.

use http::StatusCode;

use super::request::UploadFault;
use crate::pool;

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Connect(#[source] pool::Failure),
    #[error("no connection within the time for it (timeouts.connect of the route's proxy)")]
    ConnectTimeout,
    #[error("it closed the connection before it answered")]
    Closed,
    #[error("its answer is not HTTP, or has too long a head: {0}")]
    Garbage(#[source] hyper::Error),
    #[error("the connection broke: {0}")]
    Io(#[source] hyper::Error),
    #[error("no answer within the time for it (timeouts.head of the route's proxy)")]
    HeadTimeout,
    #[error("it takes no more of the request (timeouts.stall of the route's proxy)")]
    RequestStalled,
    #[error("its answer stands still (timeouts.stall of the route's proxy)")]
    AnswerStalled,
    #[error("its answer ended early: {0}")]
    AnswerBroke(#[source] hyper::Error),
    #[error("it answered a WebSocket's handshake with {0}, which accepts nothing")]
    NotAccepted(StatusCode),
    #[error("its answer to a WebSocket's handshake is wrong (RFC 6455 4.1)")]
    WrongHandshake,
    #[error("no server is left: {0}")]
    NoServer(&'static str),
    #[error(
        "the request has passed this gateway, or others like it, too often: does the application lead back here?"
    )]
    Loop,
    #[error("the client left before it was answered")]
    ClientLeft,
    #[error("the client sends no more of its request")]
    ClientStalled,
    #[error("the request's body is longer than it may be (request_body of the route's proxy)")]
    TooLarge,
    #[error("the request's path has a segment `..`")]
    Path,
    #[error("the gateway has as many connections as it may have")]
    Connections,
}

impl From<UploadFault> for Failure {
    fn from(fault: UploadFault) -> Self {
        match fault {
            UploadFault::Broke => Self::ClientLeft,
            UploadFault::TooLarge => Self::TooLarge,
        }
    }
}

impl Failure {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Connect(_)
            | Self::Closed
            | Self::Garbage(_)
            | Self::Io(_)
            | Self::AnswerBroke(_)
            | Self::NotAccepted(_)
            | Self::WrongHandshake => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout
            | Self::HeadTimeout
            | Self::RequestStalled
            | Self::AnswerStalled => StatusCode::GATEWAY_TIMEOUT,
            Self::NoServer(_) | Self::Connections => StatusCode::SERVICE_UNAVAILABLE,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::ClientLeft | Self::Path => StatusCode::BAD_REQUEST,
            Self::ClientStalled => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }

    /// For the client. SECURITY: nothing of addresses or of the application's own words.
    pub(super) fn sentence(&self) -> &'static str {
        match self {
            Self::Connect(_) => "The web application behind this path cannot be reached.",
            Self::Closed | Self::Io(_) | Self::AnswerBroke(_) => {
                "The web application behind this path ended the connection without an answer."
            }
            Self::Garbage(_) => {
                "The web application behind this path gave an answer that is not HTTP."
            }
            Self::ConnectTimeout
            | Self::HeadTimeout
            | Self::RequestStalled
            | Self::AnswerStalled => "The web application behind this path did not answer in time.",
            Self::NotAccepted(_) | Self::WrongHandshake => {
                "The web application behind this path does not speak WebSocket here."
            }
            Self::NoServer(_) => "No server of the web application behind this path is left.",
            Self::Connections => "The gateway has as many connections as it may have.",
            Self::Loop => "The request goes round in a circle.",
            Self::ClientLeft => "The request ended before it was whole.",
            Self::ClientStalled => "The rest of the request did not come in time.",
            Self::TooLarge => "The request's body is longer than it may be here.",
            Self::Path => "The path has a segment `..`, which no browser sends.",
        }
    }

    /// The label in metrics.
    pub(super) fn cause(&self) -> &'static str {
        match self {
            Self::Connect(failure) => failure.cause(),
            Self::ConnectTimeout => "connect_timeout",
            Self::Closed => "closed",
            Self::Garbage(_) => "garbage",
            Self::Io(_) => "io",
            Self::HeadTimeout => "head_timeout",
            Self::RequestStalled => "request_stalled",
            Self::AnswerStalled => "answer_stalled",
            Self::AnswerBroke(_) => "answer_broke",
            Self::NotAccepted(_) | Self::WrongHandshake => "handshake",
            Self::NoServer(_) => "no_server",
            Self::Loop => "loop",
            Self::ClientLeft => "client_left",
            Self::ClientStalled => "client_stalled",
            Self::TooLarge => "too_large",
            Self::Path => "path",
            Self::Connections => "connections",
        }
    }

    /// The operator should look at the application; else it is a client's doing, or the configuration's wish.
    pub(super) fn is_the_applications(&self) -> bool {
        match self {
            Self::Connect(_)
            | Self::ConnectTimeout
            | Self::Closed
            | Self::Garbage(_)
            | Self::Io(_)
            | Self::HeadTimeout
            | Self::RequestStalled
            | Self::AnswerStalled
            | Self::AnswerBroke(_)
            | Self::NotAccepted(_)
            | Self::WrongHandshake
            | Self::NoServer(_) => true,
            // SECURITY: any client can write such a `Via`; it is counted, and told without an alarm.
            Self::Loop
            | Self::ClientLeft
            | Self::ClientStalled
            | Self::TooLarge
            | Self::Path
            | Self::Connections => false,
        }
    }

    /// It counts towards an ejection of the server.
    pub(super) fn is_the_servers(&self) -> bool {
        let is_ours = matches!(
            self,
            Self::Connect(pool::Failure::SourcePorts | pool::Failure::SourceAddress(..))
                | Self::NoServer(_)
                | Self::NotAccepted(_)
                | Self::WrongHandshake
        );
        self.is_the_applications() && !is_ours
    }

    /// It may be another at the next try.
    pub(super) fn retry_after(&self) -> bool {
        self.status() == StatusCode::SERVICE_UNAVAILABLE
    }
}
