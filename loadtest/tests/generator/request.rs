//! Just enough HTTP/1.1 for servers that are made up here.

use std::collections::BTreeMap;
use std::io::BufRead;

/// A request to an API.
pub(crate) struct HttpRequest {
    pub(crate) method: String,
    pub(crate) path: String,
    /// By their names in small letters.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl HttpRequest {
    /// Reads the next one; `None` when there is none, or none that can be understood.
    pub(crate) fn read(input: &mut impl BufRead) -> Option<Self> {
        let mut line = String::new();
        input.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let mut words = line.split(' ').map(str::to_owned);
        let (method, path) = (words.next()?, words.next()?);
        let mut headers = BTreeMap::new();
        loop {
            let mut header = String::new();
            input.read_line(&mut header).ok()?;
            let Some((name, value)) = header.trim().split_once(": ") else {
                break;
            };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length");
        let length = length.map_or(Ok(0), |value| value.parse()).ok()?;
        let mut body = vec![0; length];
        input.read_exact(&mut body).ok()?;
        Some(Self {
            method,
            path,
            headers,
            body: String::from_utf8(body).ok()?,
        })
    }
}
