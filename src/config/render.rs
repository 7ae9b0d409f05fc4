//! The tree as text: the file `config init` writes and the effective settings `config show` prints.

use toml::Value;

use super::Config;
use super::section::Key;
use super::source::Loaded;

/// A file that documents every key and sets none: what is commented out is the default.
pub fn default_file() -> String {
    let defaults = Config::default().to_table();
    let mut text = String::from(FILE_HEAD);
    for section in Config::SECTIONS {
        text.push('\n');
        section
            .about
            .iter()
            .for_each(|line| write_comment(&mut text, line));
        write_line(&mut text, &format!("[{}]", section.name));
        for key in section.keys {
            let default = defaults
                .get(section.name)
                .and_then(|keys| keys.get(key.name));
            write_documented(&mut text, key, default);
        }
    }
    text
}

/// Every setting in effect, with a comment where it is not the default's.
pub fn effective(loaded: &Loaded) -> String {
    let tree = loaded.config.to_table();
    let mut text = String::new();
    for section in Config::SECTIONS {
        write_line(&mut text, &format!("[{}]", section.name));
        for key in section.keys {
            let value = tree.get(section.name).and_then(|keys| keys.get(key.name));
            let path = format!("{}.{}", section.name, key.name);
            let origin = loaded
                .origins
                .get(&path)
                .map(|origin| format!("  # {origin}"));
            write_setting(
                &mut text,
                section.name,
                key,
                value,
                &origin.unwrap_or_default(),
            );
        }
        text.push('\n');
    }
    text
}

/// One setting; lists of tables, which end their section, with a head for each item.
fn write_setting(text: &mut String, section: &str, key: &Key, value: Option<&Value>, note: &str) {
    match value {
        None => write_line(text, &format!("# {} is unset", key.name)),
        Some(Value::Array(items)) if items.iter().any(Value::is_table) => {
            for item in items {
                write_line(text, &format!("\n[[{section}.{}]]{note}", key.name));
                item.as_table()
                    .into_iter()
                    .flatten()
                    .for_each(|(name, value)| {
                        write_line(text, &format!("{name} = {value}"));
                    });
            }
        }
        Some(value) => write_line(text, &format!("{} = {value}{note}", key.name)),
    }
}

/// A key's documentation and its default, commented out. Lists of tables have an example in their documentation instead.
fn write_documented(text: &mut String, key: &Key, default: Option<&Value>) {
    key.about.iter().for_each(|line| write_comment(text, line));
    let has_example = key
        .about
        .iter()
        .any(|line| line.trim_start().starts_with("[["));
    match default {
        _ if has_example => {}
        Some(value) => write_line(text, &format!("#{} = {value}", key.name)),
        None => write_line(text, &format!("#{} = \"\"  # unset", key.name)),
    }
}

fn write_comment(text: &mut String, line: &str) {
    write_line(text, &format!("#{line}"));
}

fn write_line(text: &mut String, line: &str) {
    text.extend([line, "\n"]);
}

const FILE_HEAD: &str = "\
# Tautline's configuration. Each key may also be set as TAUTLINE_SECTION_KEY in the environment or with
# --set section.key=value. Check it with `tautline config check FILE`.
";

#[cfg(test)]
mod tests {
    use super::super::source::Sources;
    use super::*;

    #[test]
    fn the_default_file_sets_nothing() {
        let config: Config = toml::from_str(&default_file()).unwrap();
        assert_eq!(config, Config::default());
    }

    #[test]
    fn what_is_commented_out_is_the_default() {
        let is_setting = |line: &str| line.starts_with('#') && !line.starts_with("# ");
        let uncomment = |line: &'static str| match line {
            line if line.ends_with("# unset") => "",
            line if is_setting(line) => &line[1..],
            line => line,
        };
        let text = default_file().leak();
        let lines: Vec<_> = text.lines().map(uncomment).collect();
        let config: Config = toml::from_str(&lines.join("\n")).unwrap();
        assert_eq!(config, Config::default());
        for (section, key) in super::super::name::all() {
            let named = text.contains(&format!("#{key} ="))
                || text.contains(&format!("[[{section}.{key}]]"));
            assert!(named, "{section}.{key}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back_and_says_where_it_came_from() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let key = "[[auth.keys]]\nalgorithm = \"HS256\"\nsecret_file = \"secret\"\n";
        std::fs::write(file.path(), format!("drain.interval = \"3s\"\n{key}")).unwrap();
        let sources = Sources {
            file: Some(file.path().into()),
            environment: vec![("TAUTLINE_LOG_LEVEL".into(), "debug".into())],
            flags: vec!["limits.message_bytes_max=1KiB".into()],
        };
        let loaded = sources.load().unwrap();
        let text = effective(&loaded);
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), loaded.config);
        assert!(
            text.contains("level = \"debug\"  # TAUTLINE_LOG_LEVEL\n"),
            "{text}"
        );
        assert!(text.contains("message_bytes_max = \"1KiB\"  # --set limits.message_bytes_max\n"));
        assert!(text.contains(&format!("interval = \"3s\"  # {}\n", file.path().display())));
        assert!(text.contains(&format!("\n[[auth.keys]]  # {}\n", file.path().display())));
    }
}
