//! The configuration file: TOML, with the place of every mistake.

use std::ops::Range;
use std::path::Path;

use toml::de::DeTable;
use toml::{Spanned, Table};

use super::Config;
use super::error::{ConfigError, ConfigErrors};
use super::name;

/// A file whose names and types are right.
#[derive(Debug)]
pub(super) struct ConfigFile {
    /// Its name, for messages.
    pub(super) name: String,
    /// What it sets.
    pub(super) table: Table,
}

impl ConfigFile {
    /// Reads the file; every unknown name is reported, or else the first value of a wrong type.
    pub(super) fn read(path: &Path) -> Result<Self, ConfigErrors> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| {
            ConfigError::new(&name, e.to_string()).advise("`tautline config init` writes a file")
        })?;
        let source = SourceText {
            name: &name,
            text: &text,
        };
        let document = DeTable::parse(&text).map_err(|e| source.error(&e))?;
        ConfigErrors::check(source.unknown_names(document.get_ref()))?;
        let _: Config = toml::from_str(&text).map_err(|e| source.error(&e))?;
        let table = toml::from_str(&text).map_err(|e| source.error(&e))?;
        Ok(Self { name, table })
    }
}

struct SourceText<'a> {
    name: &'a str,
    text: &'a str,
}

impl SourceText<'_> {
    fn unknown_names(&self, document: &DeTable<'_>) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        for (section, content) in document {
            let name = section.get_ref().as_ref();
            if !Config::SECTIONS.iter().any(|known| known.name == name) {
                let cause = format!("no such section: {name}");
                errors.push(
                    self.error_at(section, cause)
                        .advise(name::advice_for_section(name)),
                );
                continue;
            }
            let keys = content.get_ref().as_table().into_iter().flatten();
            errors.extend(keys.filter_map(|(key, _)| self.unknown_key(name, key)));
        }
        errors
    }

    fn unknown_key(
        &self,
        section: &str,
        key: &Spanned<toml::de::DeString<'_>>,
    ) -> Option<ConfigError> {
        let path = format!("{section}.{}", key.get_ref());
        let is_known = name::of_path(&path).is_some();
        (!is_known).then(|| {
            self.error_at(key, format!("no such key: {path}"))
                .advise(name::advice_for_path(&path))
        })
    }

    fn error_at<T>(&self, spanned: &Spanned<T>, cause: String) -> ConfigError {
        ConfigError::new(self.place(&spanned.span()), cause)
    }

    fn error(&self, error: &toml::de::Error) -> ConfigError {
        let place = error
            .span()
            .map_or_else(|| self.name.into(), |span| self.place(&span));
        ConfigError::new(place, error.message().trim().replace('\n', ", "))
    }

    /// `file:line:column`, both from one, the column in characters.
    fn place(&self, span: &Range<usize>) -> String {
        let before = self.text.get(..span.start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        format!("{}:{line}:{column}", self.name)
    }
}
