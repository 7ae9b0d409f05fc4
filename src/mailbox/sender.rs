//! Who a message is from: what its receiver is told, and what the owner of the receiver decides by.

use std::sync::Arc;

/// The far end a message came from.
#[derive(Clone, Debug)]
pub enum Sender {
    /// A back end, by the name of its key. It may reach every device.
    Service(Arc<str>),
    /// A device, which may reach those of its account and those that its token names.
    Device(Arc<DeviceSender>),
}

/// A device as the sender of a message, with its rights as they were when it sent.
#[derive(Debug)]
pub struct DeviceSender {
    /// The device.
    pub device_id: Box<str>,
    /// The account that owns it.
    pub account: Option<Box<str>>,
    /// Ids of devices and accounts it may reach besides; those that end in `*` are beginnings.
    pub may_send_to: Box<[Box<str>]>,
}

impl Sender {
    /// What tells it from every other sender.
    pub fn name(&self) -> String {
        match self {
            Self::Service(name) => format!("service {name}"),
            Self::Device(device) => format!("device {}", device.device_id),
        }
    }

    /// Whether the sender may reach a device of an account, decided where that device is.
    pub fn may_reach(&self, device_id: &str, account: Option<&str>) -> bool {
        match self {
            Self::Service(_) => true,
            Self::Device(sender) => sender.may_reach(device_id, account),
        }
    }
}

impl DeviceSender {
    fn may_reach(&self, device_id: &str, account: Option<&str>) -> bool {
        self.owns_or_names(account)
            || self
                .may_send_to
                .iter()
                .any(|pattern| matches(pattern, device_id))
    }

    /// Whether the account is the sender's own, or one that its token names.
    pub fn owns_or_names(&self, account: Option<&str>) -> bool {
        let Some(account) = account else {
            return false;
        };
        self.account.as_deref() == Some(account)
            || self
                .may_send_to
                .iter()
                .any(|pattern| matches(pattern, account))
    }
}

/// Whether an id is the pattern, or begins with it if it ends in `*`.
fn matches(pattern: &str, id: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => id.starts_with(beginning),
        None => id == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(account: Option<&str>, may_send_to: &[&str]) -> Sender {
        Sender::Device(Arc::new(DeviceSender {
            device_id: "phone-1".into(),
            account: account.map(Into::into),
            may_send_to: may_send_to.iter().map(|&pattern| pattern.into()).collect(),
        }))
    }

    #[test]
    fn a_device_reaches_its_account_and_what_its_token_names() {
        let ann = device(Some("ann"), &[]);
        assert!(ann.may_reach("tv-1", Some("ann")));
        assert!(!ann.may_reach("tv-1", Some("bob")));
        assert!(!ann.may_reach("tv-1", None));

        let named = device(Some("ann"), &["bob", "shop-*"]);
        assert!(named.may_reach("tv-1", Some("bob")));
        assert!(named.may_reach("tv-1", Some("shop-7")));
        assert!(named.may_reach("shop-till", None));
        assert!(!named.may_reach("tv-1", Some("bobby")));
        assert!(!named.may_reach("tv-1", Some("sho")));
    }

    #[test]
    fn devices_without_an_account_have_none_in_common() {
        let nobody = device(None, &[]);
        assert!(!nobody.may_reach("tv-1", None));
        assert!(!nobody.may_reach("tv-1", Some("ann")));
        assert!(device(None, &["*"]).may_reach("tv-1", None));
        assert!(device(None, &["tv-1"]).may_reach("tv-1", None));
    }

    #[test]
    fn a_back_end_reaches_everybody() {
        assert!(Sender::Service("billing".into()).may_reach("tv-1", None));
    }
}
