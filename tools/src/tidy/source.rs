//! One Rust source as the rules see it: where it stands, and its tokens without what only tests compile.

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

use super::Violation;
use super::path::UsePath;

/// A parsed source file.
#[derive(Debug)]
pub(crate) struct Source {
    /// Path from the root of the workspace, with forward slashes.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
    /// The module path: `["reactor", "api"]` for `src/reactor/api/mod.rs`; other members and `tests`, `benches`,
    /// `examples` begin with their own name.
    pub(crate) module: Vec<String>,
    /// Tokens in order, groups opened flat; modules and functions under `#[cfg(test)]` are left out.
    pub(crate) tokens: Vec<Token>,
}

/// An identifier, literal or sign; `::` is one token.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    /// Its text.
    pub(crate) text: String,
    /// Its line, from 1.
    pub(crate) line: usize,
    /// Whether it is an identifier or a keyword.
    pub(crate) is_ident: bool,
}

impl Source {
    /// Reads a file; an error when it is not Rust.
    pub(crate) fn parse(path: &str, text: &str) -> Result<Self> {
        let stream: TokenStream = text
            .parse()
            .map_err(|e| anyhow!("{path} is not Rust: {e}"))?;
        let mut tokens = Vec::new();
        flatten(stream, &mut tokens);
        Ok(Self {
            path: path.to_owned(),
            text: text.to_owned(),
            module: module_of(path),
            tokens,
        })
    }

    /// Whether it belongs to the library or the binary, and is not compiled for tests only.
    pub(crate) fn is_product(&self) -> bool {
        self.path.starts_with("src/") && !self.is_test()
    }

    /// Whether the whole file is there for tests.
    pub(crate) fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.module.iter().any(|m| m == "tests")
    }

    /// Whether it stands in the module `ancestor` (`reactor::api`) or below.
    pub(crate) fn is_within(&self, ancestor: &str) -> bool {
        let mut own = self.module.iter();
        ancestor
            .split("::")
            .all(|m| own.next().is_some_and(|o| o == m))
    }

    /// Every path it names in imports and in expressions.
    pub(crate) fn paths(&self) -> Vec<UsePath> {
        UsePath::all(&self.tokens)
    }

    /// A violation at one of its lines.
    pub(crate) fn violation(
        &self,
        line: usize,
        message: String,
        reason: &'static str,
    ) -> Violation {
        Violation {
            place: format!("{}:{line}", self.path),
            message,
            reason,
        }
    }
}

fn module_of(path: &str) -> Vec<String> {
    let in_member = |p: &str| p.replacen("/src/", "/", 1);
    let path = path
        .strip_prefix("src/")
        .map_or_else(|| in_member(path), str::to_owned);
    let path = path.trim_end_matches(".rs");
    let mut module: Vec<String> = path.split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|m| m == "mod" || m == "lib") {
        module.pop();
    }
    module
}

fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    let mut trees = stream.into_iter().peekable();
    let mut is_joint_colon = false;
    while let Some(tree) = trees.next() {
        let line = tree.span().start().line;
        let mut push = |text: String, is_ident| {
            tokens.push(Token {
                text,
                line,
                is_ident,
            })
        };
        match tree {
            TokenTree::Group(group) if is_test_only(&group) => skip_item(&mut trees),
            TokenTree::Group(group) => open(&group, tokens),
            TokenTree::Ident(ident) => push(ident.to_string(), true),
            TokenTree::Literal(literal) => push(literal.to_string(), false),
            TokenTree::Punct(sign) if sign.as_char() == ':' && is_joint_colon => {
                is_joint_colon = false;
                if let Some(first) = tokens.last_mut() {
                    first.text = "::".to_owned();
                }
            }
            TokenTree::Punct(sign) => {
                is_joint_colon = sign.as_char() == ':' && sign.spacing() == Spacing::Joint;
                push(sign.to_string(), false);
            }
        }
    }
}

fn open(group: &Group, tokens: &mut Vec<Token>) {
    let (opening, closing) = match group.delimiter() {
        Delimiter::Brace => ("{", "}"),
        Delimiter::Parenthesis => ("(", ")"),
        Delimiter::Bracket => ("[", "]"),
        Delimiter::None => ("", ""),
    };
    let sign = |text: &str, line| Token {
        text: text.to_owned(),
        line,
        is_ident: false,
    };
    tokens.push(sign(opening, group.span_open().start().line));
    flatten(group.stream(), tokens);
    tokens.push(sign(closing, group.span_close().start().line));
}

/// Whether the group is the `[cfg(test)]` of an attribute, alone or among other conditions that must all hold.
fn is_test_only(group: &Group) -> bool {
    let text = group.stream().to_string().replace(' ', "");
    let condition = text.strip_prefix("cfg(").and_then(|t| t.strip_suffix(')'));
    condition.is_some_and(|c| c == "test" || c.starts_with("all(test,"))
}

/// Passes over what the attribute before stands on: up to its body or its semicolon.
fn skip_item(trees: &mut impl Iterator<Item = TokenTree>) {
    for tree in trees {
        let ends = match tree {
            TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
            TokenTree::Punct(sign) => sign.as_char() == ';',
            TokenTree::Ident(_) | TokenTree::Literal(_) => false,
        };
        if ends {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_named_after_files() {
        assert_eq!(module_of("src/reactor/api/mod.rs"), ["reactor", "api"]);
        assert_eq!(module_of("src/main.rs"), ["main"]);
        assert!(module_of("src/lib.rs").is_empty());
        assert_eq!(module_of("loadtest/src/idle.rs"), ["loadtest", "idle"]);
        assert_eq!(module_of("benches/wheel.rs"), ["benches", "wheel"]);
    }

    #[test]
    fn what_only_tests_compile_is_left_out() {
        let text = "fn kept() {}\n#[cfg(test)]\nmod tests { fn gone() {} }\n#[cfg(test)] mod twin;\n\
                    #[cfg(all(test, loom))] fn also_gone() {}\n#[cfg(not(test))] fn stays() {}";
        let source = Source::parse("src/base/id.rs", text).unwrap();
        let has = |name: &str| source.tokens.iter().any(|t| t.text == name);
        assert!(has("kept") && has("stays"));
        assert!(!has("gone") && !has("twin") && !has("also_gone"));
    }

    #[test]
    fn strings_and_comments_name_nothing() {
        let source = Source::parse(
            "src/base/id.rs",
            "// mio::Poll\nconst A: &str = \"mio::Poll\";",
        )
        .unwrap();
        assert!(source.paths().is_empty());
    }
}
