//! Which messages have come already: a device that changes its line may hear one on both.

use std::collections::VecDeque;

use serde_json::Value;

/// The ids of the messages that came last.
#[derive(Debug, Default)]
pub(super) struct Seen(VecDeque<String>);

impl Seen {
    /// Notes a message; false if it is one of the last. A message without an id is always new.
    pub(super) fn is_new(&mut self, id: &Value) -> bool {
        let Some(id) = id.as_str() else {
            return true;
        };
        if self.0.iter().rev().any(|seen| seen == id) {
            return false;
        }
        if self.0.len() == SEEN_MAX {
            self.0.pop_front();
        }
        self.0.push_back(id.to_owned());
        true
    }
}

/// Messages whose ids are remembered: a message comes on two lines only around a change of lines.
const SEEN_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_new_once_and_only_the_last_are_remembered() {
        let mut seen = Seen::default();
        assert!(seen.is_new(&json!("a")));
        assert!(!seen.is_new(&json!("a")));
        assert!(seen.is_new(&Value::Null) && seen.is_new(&Value::Null));
        for n in 0..SEEN_MAX {
            assert!(seen.is_new(&json!(n.to_string())));
        }
        assert_eq!(seen.0.len(), SEEN_MAX);
        assert!(seen.is_new(&json!("a")), "forgotten");
    }
}
