//! What a stand-in does differently when asked to: be late, lie, break off.
//!
//! A switch has a name and a value. It is set for all requests by a program or the command line, or for one
//! by a header `x-stand-in-<name>`. An unknown name or value is refused: a mistyped switch must not mean "off".

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// What starts a header that is a switch.
pub const HEADER_PREFIX: &str = "x-stand-in-";

/// Every switch: its name, what its value is, and what it does.
pub const SWITCHES: [(&str, &str, &str); 20] = [
    ("slow-head", "MILLISECONDS", "waits before the answer's head"),
    ("slow-body", "MILLISECONDS", "waits before each piece of the answer's body"),
    ("piece", "BYTES", "the size of those pieces; default 1024"),
    ("cut", "BYTES[,reset]", "breaks off after so many bytes of the body, by FIN or by RST"),
    ("drop", "always|reused[,reset]", "closes without an answer; `reused`: unless the connection is fresh"),
    ("garbage", "true", "sends bytes that are no HTTP instead of an answer"),
    ("raw", "BASE64", "sends exactly these bytes instead of an answer, then closes"),
    ("trailing", "true", "sends a second answer, that nobody asked for, after the first"),
    ("informational", "STATUS", "sends this 1xx (102 to 199) before the answer"),
    ("status", "STATUS", "answers so (200 to 599)"),
    ("retry-after", "TEXT", "adds this Retry-After"),
    ("redirect", "true", "answers 302 to /users on the same host"),
    ("header", "NAME: VALUE", "adds this header; may be given several times"),
    ("echo", "true", "answers with what was received"),
    ("reflect", "true", "adds the Authorization that was received, as header x-stand-in-reflected"),
    ("big", "BYTES", "answers with a body of this size, lines of the tag"),
    ("tag", "TEXT", "what the big body repeats; default: the request's number"),
    ("chunked", "true", "leaves Content-Length out"),
    ("gzip", "true", "compresses the body"),
    ("early", "true", "answers without reading the request's body"),
];

/// The switches that are on. Default: none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Switches {
    pub(super) slow_head: Option<Duration>,
    pub(super) slow_body: Option<Duration>,
    pub(super) piece: Option<usize>,
    pub(super) cut: Option<Cut>,
    pub(super) drop: Option<Drop>,
    pub(super) raw: Option<Bytes>,
    pub(super) trailing: bool,
    pub(super) informational: Option<StatusCode>,
    pub(super) status: Option<StatusCode>,
    pub(super) retry_after: Option<HeaderValue>,
    pub(super) redirect: bool,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) echo: bool,
    pub(super) reflect: bool,
    pub(super) big: Option<u64>,
    pub(super) tag: Option<String>,
    pub(super) chunked: bool,
    pub(super) gzip: bool,
    pub(super) early: bool,
}

/// Where an answer breaks off, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) after: u64,
    pub(super) reset: bool,
}

/// When a connection is closed instead of answered, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Drop {
    pub(super) reused_only: bool,
    pub(super) reset: bool,
}

/// A switch that is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Its name is none of [`SWITCHES`].
    #[error("there is no switch `{0}`; there are: {names}", names = names())]
    Unknown(String),
    /// Its value does not fit.
    #[error("the switch `{name}` takes {wanted}")]
    Value {
        /// The switch.
        name: &'static str,
        /// What it takes.
        wanted: &'static str,
    },
}

/// No request line, no status line, and a NUL.
const GARBAGE: &[u8] = b"\x16\x03\x01 this is not HTTP \x00\r\n\r\n";

impl Switches {
    /// Sets the switch `name` to `value`.
    ///
    /// # Errors
    /// [`Error`], which changes nothing.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let Some(&(known, wanted, _)) = SWITCHES.iter().find(|(known, ..)| *known == name) else {
            return Err(Error::Unknown(name.to_owned()));
        };
        self.try_set(known, value).ok_or(Error::Value { name: known, wanted })
    }

    /// Sets what the headers `x-stand-in-*` ask for, on top of what is set.
    pub(super) fn set_from(&mut self, headers: &HeaderMap) -> Result<(), Error> {
        for (name, value) in headers {
            if let Some(name) = name.as_str().strip_prefix(HEADER_PREFIX) {
                self.set(name, value.to_str().unwrap_or("\0"))?;
            }
        }
        Ok(())
    }

    fn try_set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "slow-head" => self.slow_head = Some(milliseconds(value)?),
            "slow-body" => self.slow_body = Some(milliseconds(value)?),
            "piece" => self.piece = Some(value.parse().ok().filter(|&bytes| bytes > 0)?),
            "cut" => {
                let (after, reset) = with_reset(value)?;
                self.cut = Some(Cut { after: after.parse().ok()?, reset });
            }
            "drop" => {
                let (when, reset) = with_reset(value)?;
                let reused_only = match when {
                    "always" => false,
                    "reused" => true,
                    _ => return None,
                };
                self.drop = Some(Drop { reused_only, reset });
            }
            "garbage" => self.raw = flag(value)?.then(|| Bytes::from_static(GARBAGE)),
            "raw" => self.raw = Some(BASE64_STANDARD.decode(value).ok()?.into()),
            "trailing" => self.trailing = flag(value)?,
            "informational" => self.informational = Some(status(value, 102, 199)?),
            "status" => self.status = Some(status(value, 200, 599)?),
            "retry-after" => self.retry_after = Some(HeaderValue::from_str(value).ok()?),
            "redirect" => self.redirect = flag(value)?,
            "header" => {
                let (name, value) = value.split_once(':')?;
                self.headers.push((name.trim().parse().ok()?, value.trim().parse().ok()?));
            }
            "echo" => self.echo = flag(value)?,
            "reflect" => self.reflect = flag(value)?,
            "big" => self.big = Some(value.parse().ok()?),
            "tag" => self.tag = Some(value.to_owned()).filter(|tag| !tag.is_empty() && tag.len() < 256),
            "chunked" => self.chunked = flag(value)?,
            "gzip" => self.gzip = flag(value)?,
            "early" => self.early = flag(value)?,
            _ => return None,
        }
        Some(())
    }
}

fn names() -> String {
    SWITCHES.map(|(name, ..)| name).join(", ")
}

fn milliseconds(value: &str) -> Option<Duration> {
    value.parse().ok().map(Duration::from_millis)
}

fn status(value: &str, min: u16, max: u16) -> Option<StatusCode> {
    let code = value.parse().ok().filter(|code| (min..=max).contains(code))?;
    StatusCode::from_u16(code).ok()
}

fn flag(value: &str) -> Option<bool> {
    match value {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// `VALUE` or `VALUE,reset`.
fn with_reset(value: &str) -> Option<(&str, bool)> {
    match value.split_once(',') {
        None => Some((value, false)),
        Some((value, "reset")) => Some((value, true)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value_for(wanted: &str) -> &'static str {
        match wanted {
            "true" => "true",
            "STATUS" => "199",
            "BASE64" => "AAAA",
            "NAME: VALUE" => "Set-Cookie: a=b",
            "always|reused[,reset]" => "reused,reset",
            "BYTES[,reset]" => "7,reset",
            _ => "7",
        }
    }

    #[test]
    fn every_listed_switch_can_be_set_and_does_something() {
        for (name, wanted, _) in SWITCHES {
            let mut switches = Switches::default();
            let value = if name == "status" { "503" } else { value_for(wanted) };
            switches.set(name, value).unwrap();
            assert_ne!(switches, Switches::default(), "{name}");
        }
    }

    #[test]
    fn mistyped_names_and_values_are_refused_and_change_nothing() {
        let mut switches = Switches::default();
        assert!(matches!(switches.set("slowhead", "1"), Err(Error::Unknown(_))));
        for (name, value) in [
            ("slow-head", "1s"),
            ("piece", "0"),
            ("cut", "7,rst"),
            ("cut", "-1"),
            ("drop", "never"),
            ("garbage", "yes"),
            ("raw", "###"),
            ("informational", "101"),
            ("informational", "200"),
            ("status", "199"),
            ("status", "600"),
            ("header", "no colon"),
            ("header", "a b: c"),
            ("retry-after", "a\nb"),
        ] {
            assert!(matches!(switches.set(name, value), Err(Error::Value { .. })), "{name}: {value}");
        }
        assert_eq!(switches, Switches::default());
    }

    #[test]
    fn headers_are_set_on_top_of_what_is_set() {
        let mut switches = Switches::default();
        switches.set("status", "429").unwrap();
        switches.set("tag", "a").unwrap();
        let mut headers = HeaderMap::new();
        headers.append("x-stand-in-tag", HeaderValue::from_static("b"));
        headers.append("x-other", HeaderValue::from_static("b"));
        switches.set_from(&headers).unwrap();
        assert_eq!(
            (switches.tag.as_deref(), switches.status),
            (Some("b"), Some(StatusCode::TOO_MANY_REQUESTS))
        );
        headers.append("x-stand-in-tagg", HeaderValue::from_static("b"));
        assert!(switches.set_from(&headers).is_err());
    }
}
