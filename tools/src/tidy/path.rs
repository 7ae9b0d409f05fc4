//! Paths such as `crate::route::Router`, read out of tokens: imports with their groups spread out, and expressions.

use super::source::Token;

/// One path and the line it begins at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UsePath {
    /// `["crate", "route", "Router"]`.
    pub(crate) segments: Vec<String>,
    /// From 1.
    pub(crate) line: usize,
}

impl UsePath {
    /// Every path of two segments and more, and whatever `use` names.
    pub(crate) fn all(tokens: &[Token]) -> Vec<Self> {
        let mut reader = Reader {
            tokens,
            at: 0,
            found: Vec::new(),
        };
        while reader.at < tokens.len() {
            if reader.is_start() {
                reader.read_tree(&[]);
            } else {
                reader.at += 1;
            }
        }
        reader.found
    }
}

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
    found: Vec<UsePath>,
}

impl Reader<'_> {
    fn is_start(&self) -> bool {
        let is_ident = self.tokens[self.at].is_ident && self.text(self.at) != "use";
        let after_use = self.at > 0 && self.text(self.at - 1) == "use";
        let opens_tree = is_ident || matches!(self.text(self.at), "{" | "::");
        after_use && opens_tree || is_ident && self.text(self.at + 1) == "::"
    }

    /// Reads `a::b`, `a::{b, c::d}` or `{a, b}`; leaves `at` behind it.
    fn read_tree(&mut self, prefix: &[String]) {
        let mut segments = prefix.to_vec();
        let line = self.tokens[self.at].line;
        loop {
            match self.text(self.at) {
                "::" => self.at += 1,
                "{" => return self.read_group(&segments),
                name if self.tokens.get(self.at).is_some_and(|t| t.is_ident) => {
                    segments.push(name.to_owned());
                    self.at += 1;
                    if self.text(self.at) != "::" {
                        break;
                    }
                }
                _ => break,
            }
        }
        if !segments.is_empty() {
            self.found.push(UsePath { segments, line });
        }
    }

    fn read_group(&mut self, prefix: &[String]) {
        self.at += 1;
        while self.at < self.tokens.len() && self.text(self.at) != "}" {
            if self.tokens[self.at].is_ident || self.text(self.at) == "{" {
                self.read_tree(prefix);
                self.skip_alias();
            } else {
                self.at += 1;
            }
        }
        self.at += 1;
    }

    fn skip_alias(&mut self) {
        if self.text(self.at) == "as" {
            self.at += 2;
        }
    }

    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |t| &t.text)
    }
}

#[cfg(test)]
mod tests {
    use crate::tidy::source::Source;

    fn paths(text: &str) -> Vec<String> {
        let source = Source::parse("src/base/id.rs", text).unwrap();
        source
            .paths()
            .iter()
            .map(|p| p.segments.join(" "))
            .collect()
    }

    #[test]
    fn groups_are_spread_out() {
        assert_eq!(
            paths("use crate::{ws::{Frame, code as c}, route as r, net::*};"),
            [
                "crate ws Frame",
                "crate ws code",
                "crate route",
                "crate net"
            ]
        );
        assert_eq!(
            paths("use mio; use ::tokio::{sync::oneshot, time};"),
            ["mio", "tokio sync oneshot", "tokio time"]
        );
    }

    #[test]
    fn expressions_types_attributes_and_macros_count() {
        let text = "#[tokio::main] fn f(a: mio::Token) { println!(\"{}\", crate::ws::X); Vec::<u8>::new() }";
        assert!(paths("fn f<'a>(a: &'a u8) -> impl Sized + use<'a> { a }").is_empty());
        assert_eq!(
            paths(text),
            ["tokio main", "mio Token", "crate ws X", "Vec"]
        );
    }
}
