//! Names of settings: in the file, in the environment, and what someone who mistyped one may have meant.

use super::Config;

/// What the names of our variables begin with.
pub const PREFIX: &str = "TAUTLINE_";

/// Variables that belong to the command line, not to the tree.
pub const COMMAND_VARIABLES: [&str; 8] = [
    "TAUTLINE_API",
    "TAUTLINE_CA_FILE",
    "TAUTLINE_CONFIG",
    "TAUTLINE_KEY",
    "TAUTLINE_KEY_FILE",
    "TAUTLINE_STREAM",
    "TAUTLINE_TOKEN",
    "TAUTLINE_URL",
];

/// Section and key of every setting, in the order of the file.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    let keys = |section: &'static super::section::Section| {
        section.keys.iter().map(move |key| (section.name, key.name))
    };
    Config::SECTIONS.iter().flat_map(keys)
}

/// The variable that sets a key: `TAUTLINE_SECTION_KEY`.
pub fn variable(section: &str, key: &str) -> String {
    format!("{PREFIX}{section}_{key}").to_ascii_uppercase()
}

/// The section and key that a variable sets.
pub(super) fn of_variable(name: &str) -> Option<(&'static str, &'static str)> {
    all().find(|(section, key)| variable(section, key) == name)
}

/// The section and key that `section.key` names.
pub(super) fn of_path(path: &str) -> Option<(&'static str, &'static str)> {
    let (section, key) = path.trim().split_once('.')?;
    all().find(|setting| *setting == (section, key))
}

/// What to write instead of an unknown variable.
pub(super) fn advice_for_variable(name: &str) -> String {
    let variables = all().map(|(section, key)| variable(section, key));
    let variables = variables.chain(COMMAND_VARIABLES.map(Into::into));
    did_you_mean(nearest(name, variables))
}

/// What to write instead of an unknown `section.key`; the right key in the wrong section is near.
pub(super) fn advice_for_path(path: &str) -> String {
    let key = path.rsplit('.').next().unwrap_or(path);
    let elsewhere = all().find(|setting| setting.1 == key);
    let path_of = |(section, key)| format!("{section}.{key}");
    did_you_mean(
        elsewhere
            .map(path_of)
            .or_else(|| nearest(path, all().map(path_of))),
    )
}

/// What to write instead of an unknown section.
pub(super) fn advice_for_section(name: &str) -> String {
    let sections = Config::SECTIONS
        .iter()
        .map(|section| section.name.to_owned());
    match nearest(name, sections) {
        Some(section) => did_you_mean(Some(section)),
        None => advice_for_path(name),
    }
}

fn did_you_mean(name: Option<String>) -> String {
    match name {
        Some(name) => format!("did you mean {name}?"),
        None => "`tautline config init --stdout` prints every name".into(),
    }
}

/// The candidate with the fewest typing mistakes, unless it would take more than one in three characters.
fn nearest(name: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(name, &candidate), candidate))
        .min()
        .filter(|(mistakes, candidate)| mistakes * 3 <= candidate.len())
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_settings_share_a_variable() {
        let mut names: Vec<_> = all().map(|(section, key)| variable(section, key)).collect();
        names.extend(COMMAND_VARIABLES.map(Into::into));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn mistyped_names_are_recognised() {
        assert_eq!(
            advice_for_path("heartbeat.ping_aftr"),
            "did you mean heartbeat.ping_after?"
        );
        assert_eq!(
            advice_for_path("limits.ping_after"),
            "did you mean heartbeat.ping_after?"
        );
        assert_eq!(advice_for_section("limit"), "did you mean limits?");
        assert_eq!(
            advice_for_section("ping_after"),
            "did you mean heartbeat.ping_after?"
        );
        assert_eq!(
            advice_for_variable("TAUTLINE_LOG_LEVL"),
            "did you mean TAUTLINE_LOG_LEVEL?"
        );
        assert!(advice_for_path("xyzzy").contains("config init"));
    }
}
