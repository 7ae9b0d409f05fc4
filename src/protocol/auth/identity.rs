//! What authentication yields, in one small allocation.

use std::fmt;

/// Who a device is and what it may do. A line keeps it for life, so it is one string: the device id, the account and
/// then labels and rights, a line each. Neither ids nor labels may contain control characters, so none needs escaping.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity(Box<str>);

impl Identity {
    /// Packs what has been validated: ids and patterns of the id alphabet, labels without control characters.
    pub(crate) fn pack<'a>(
        device: &str,
        account: Option<&str>,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        may_send_to: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut text = format!("{device}\n{}", account.unwrap_or_default());
        for (key, value) in labels {
            text.extend(["\n", LABEL, key, "\t", value]);
        }
        for pattern in may_send_to {
            text.extend(["\n", RIGHT, pattern]);
        }
        Self(text.into())
    }

    /// The device's id.
    pub fn device(&self) -> &str {
        self.lines().next().unwrap_or_default()
    }

    /// The account (`user_id` on the wire) that owns the device.
    pub fn account(&self) -> Option<&str> {
        self.lines().nth(1).filter(|account| !account.is_empty())
    }

    /// The labels, sorted by key.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.extras(LABEL)
            .filter_map(|label| label.split_once('\t'))
    }

    /// The patterns of accounts and devices it may send to besides those of its own account; `*` only at the end.
    pub fn may_send_to(&self) -> impl Iterator<Item = &str> {
        self.extras(RIGHT)
    }

    fn extras(&self, kind: &'static str) -> impl Iterator<Item = &str> {
        self.lines()
            .skip(2)
            .filter_map(move |line| line.strip_prefix(kind))
    }

    fn lines(&self) -> std::str::Split<'_, char> {
        self.0.split('\n')
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("device", &self.device())
            .field("account", &self.account())
            .finish_non_exhaustive()
    }
}

const LABEL: &str = "=";
const RIGHT: &str = ">";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back() {
        let labels = [("model", "X=1"), ("os", "tvOS 19"), ("site", "")];
        let full = Identity::pack("tv-1", Some("ann"), labels, ["ann-*", "*"]);
        assert_eq!((full.device(), full.account()), ("tv-1", Some("ann")));
        assert!(full.labels().eq(labels));
        assert!(full.may_send_to().eq(["ann-*", "*"]));

        let bare = Identity::pack("tv-1", None, [], []);
        assert_eq!((bare.device(), bare.account()), ("tv-1", None));
        assert_eq!(bare.labels().count() + bare.may_send_to().count(), 0);
    }

    #[test]
    fn an_identity_is_two_words_and_its_text() {
        assert_eq!(size_of::<Identity>(), 16);
        assert_eq!(size_of::<Option<Identity>>(), 16);
        let usual = Identity::pack("0123456789abcdef", Some("account1"), [], []);
        assert_eq!(usual.0.len(), 16 + 1 + 8);
    }
}
