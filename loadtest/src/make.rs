//! Which server it is: what differs between makes in how they are spoken to.

use std::fmt;

use clap::ValueEnum;

use crate::dialect::Template;

/// A kind of server. Those with a program are started when no `--target` is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Make {
    /// Ours
    #[default]
    Tautline,
    /// nginx with nchan, tuned: small buffers, no message kept, listeners shared out by the kernel
    Nchan,
    /// nginx with nchan as its documents have it, but for limits that would end the run
    NchanDefault,
    /// A small tuned server on axum and tokio: what one would otherwise write
    Axum,
    /// A small server in JavaScript, on Bun
    Bun,
    /// Centrifugo: each line subscribes to the channel of its device. The key of a running one goes into --header
    Centrifugo,
    /// Any other WebSocket server, running: lines at `/`, which nothing is sent to unless --push-path says where
    Raw,
}

impl Make {
    /// Its name on the command line and in figures.
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Where a line is opened.
    pub(crate) fn line_path(self) -> Template {
        Template::fixed(match self {
            Self::Tautline | Self::Axum | Self::Bun => "/ws?device_id={device}&user_id={account}",
            Self::Nchan | Self::NchanDefault => "/line/{device}",
            Self::Centrifugo => "/connection/websocket",
            Self::Raw => "/",
        })
    }

    /// Where a message for a line is posted, if it takes any.
    pub(crate) fn push_path(self) -> Option<Template> {
        let path = match self {
            Self::Tautline | Self::Axum | Self::Bun => "/v1/devices/{device}/messages",
            Self::Nchan | Self::NchanDefault => "/push/{device}",
            Self::Centrifugo => "/api/publish",
            Self::Raw => return None,
        };
        Some(Template::fixed(path))
    }

    /// Whether a push may say what to wait for, `?wait=queued` or `?wait=written`.
    pub(crate) fn takes_wait(self) -> bool {
        matches!(self, Self::Tautline | Self::Axum)
    }

    /// Whether it knows the scenarios in which lines or streams send, and not only HTTP.
    pub(crate) fn takes_records(self) -> bool {
        self == Self::Tautline
    }
}

impl fmt::Display for Make {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_make_has_a_name_and_paths_that_can_be_used() {
        for make in Make::value_variants() {
            assert!(
                !make.name().contains('.'),
                "figures have dots between their words"
            );
            let is_root = make.line_path() == Template::root();
            assert_eq!(is_root, *make == Make::Raw, "{make}");
            assert_eq!(make.push_path().is_none(), *make == Make::Raw);
        }
    }
}
