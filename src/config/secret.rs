//! Secrets and keys are read from files, with errors that name the key and the file and never show what is in it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::ConfigError;

/// The content of the file named by the configuration key `place`, without one line break at its end.
///
/// # Errors
/// When the file cannot be read, is empty, or is longer than a mebibyte.
pub fn read(place: &str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    let error = |cause: String| ConfigError::new(place, format!("{}: {cause}", path.display()));
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|e| error(e.to_string()).advise("make the file readable by this process"))?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(error("more than 1 MiB is no key".into()));
    }
    let content = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let content = content.strip_suffix(b"\r").unwrap_or(content);
    if content.is_empty() {
        return Err(error("the file is empty".into()));
    }
    Ok(content.to_vec())
}

const BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_break_at_the_end_is_not_part_of_a_secret() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (written, secret) in [
            ("a b\n", "a b"),
            ("a\r\n", "a"),
            ("a\n\n", "a\n"),
            ("a", "a"),
        ] {
            std::fs::write(file.path(), written).unwrap();
            assert_eq!(read("api.keys", file.path()).unwrap(), secret.as_bytes());
        }
    }

    #[test]
    fn an_unreadable_or_empty_file_is_named() {
        let missing = read("ops.key_file", Path::new("/nowhere/ops.key")).unwrap_err();
        assert!(
            missing
                .to_string()
                .starts_with("ops.key_file: /nowhere/ops.key: No such file")
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(read("ops.key_file", file.path()).is_err());
    }
}
