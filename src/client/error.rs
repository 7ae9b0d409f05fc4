//! What can go wrong between a client and a node.

use std::io;

use super::socket::is_final;

/// A failure, with its place and, where there is one, the next step.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none we can use.
    #[error("{url}: {cause}")]
    BadUrl {
        /// As given.
        url: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Nobody is there.
    #[error("nothing listens on {place}; start it with `tautline serve`")]
    NothingListens {
        /// Host and port.
        place: String,
    },
    /// The network failed.
    #[error("{place}: {source}")]
    Network {
        /// Host and port.
        place: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The node said no before the line was open.
    #[error("{place}: refused with {status}: {message}")]
    Refused {
        /// Host and port.
        place: String,
        /// The HTTP status.
        status: u16,
        /// The node's explanation.
        message: String,
    },
    /// Nobody is named whose word is good for who the node is.
    #[error("{place}: {cause}")]
    NoAuthority {
        /// The file, or the system.
        place: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The node is not who it says, or speaks no TLS.
    #[error("{place}: TLS failed: {cause}; an authority of your own is named by --ca-file")]
    Tls {
        /// Host and port.
        place: String,
        /// What was wrong.
        cause: String,
    },
    /// The node closed the connection.
    #[error("{place}: closed with {code} {reason}")]
    Closed {
        /// Host and port.
        place: String,
        /// The close code; 1006 when the connection was cut.
        code: u16,
        /// Its words.
        reason: String,
    },
    /// The other side does not speak as it should.
    #[error("{place}: {cause}")]
    Protocol {
        /// Host and port.
        place: String,
        /// What was wrong.
        cause: String,
    },
}

impl ClientError {
    /// The network's failure at `place`, told apart when nobody is there.
    pub(super) fn network(place: &str, source: io::Error) -> Self {
        let place = place.to_owned();
        if source.kind() == io::ErrorKind::ConnectionRefused {
            return Self::NothingListens { place };
        }
        // What rustls finds wrong with what came.
        if source.kind() == io::ErrorKind::InvalidData {
            let cause = source.to_string();
            return Self::Tls { place, cause };
        }
        Self::Network { place, source }
    }

    /// Whether trying again later may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NothingListens { .. } | Self::Network { .. } => true,
            Self::Refused { status, .. } => matches!(status, 429 | 500..),
            Self::Closed { code, .. } => !is_final(*code),
            Self::BadUrl { .. }
            | Self::NoAuthority { .. }
            | Self::Tls { .. }
            | Self::Protocol { .. } => false,
        }
    }
}
