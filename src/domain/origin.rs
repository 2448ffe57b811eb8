//! Web origins a source takes events from, such as `https://shop.example` or `https://*.example.com`.

use std::fmt;

use url::Url;

/// Origins one source may have.
pub const ORIGINS_MAX: usize = 100;
/// Stands for one or more labels at the start of a host.
const ANY_SUBDOMAIN: &str = "*.";

/// An origin that is allowed: scheme, host and port, or every host below one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigin {
    /// `https://`, in lower case.
    scheme: String,
    /// Whether hosts below it are meant, and not itself.
    below: bool,
    /// Host and, unless it is the scheme's own, port.
    host: String,
}

impl AllowedOrigin {
    /// Reads one: `http` or `https`, a host, perhaps `*.` before it and a port behind it, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://")?;
        let below = rest.starts_with(ANY_SUBDOMAIN);
        let host = rest.strip_prefix(ANY_SUBDOMAIN).unwrap_or(rest);
        if host.is_empty() || host.contains(['*', '/', '?', '#', '@', '\\']) {
            return None;
        }
        let (scheme, host) = split(&Url::parse(&format!("{scheme}://{host}")).ok()?)?;
        Some(Self { scheme, below, host })
    }

    /// Whether it is the origin a browser names in `Origin`.
    pub fn allows(&self, origin: &str) -> bool {
        let Some((scheme, host)) = Url::parse(origin).ok().as_ref().and_then(split) else { return false };
        let is_host = if self.below {
            host.strip_suffix(&self.host).is_some_and(|before| before.len() > 1 && before.ends_with('.'))
        } else {
            host == self.host
        };
        is_host && scheme == self.scheme
    }
}

/// Scheme with `://`, and host with port.
fn split(url: &Url) -> Option<(String, String)> {
    if !matches!(url.scheme(), "http" | "https") {
        return None;
    }
    let origin = url.origin().ascii_serialization();
    let place = origin.find("://")? + 3;
    Some((origin[..place].to_owned(), origin[place..].to_owned()))
}

impl fmt::Display for AllowedOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let any = if self.below { ANY_SUBDOMAIN } else { "" };
        write!(f, "{}{any}{}", self.scheme, self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_as_browsers_do() {
        for (allowed, origin, expected) in [
            ("https://shop.example", "https://shop.example", true),
            ("HTTPS://Shop.Example:443", "https://shop.example", true),
            ("https://shop.example", "http://shop.example", false),
            ("https://shop.example", "https://shop.example:8443", false),
            ("https://shop.example:8443", "https://shop.example:8443", true),
            ("https://shop.example", "https://shop.example.evil.test", false),
            ("https://shop.example", "null", false),
            ("https://*.shop.example", "https://a.b.shop.example", true),
            ("https://*.shop.example", "https://shop.example", false),
            ("https://*.shop.example", "https://evilshop.example", false),
            ("https://*.shop.example", "https://.shop.example", false),
            ("http://localhost:3000", "http://localhost:3000", true),
        ] {
            let parsed = AllowedOrigin::parse(allowed).unwrap();
            assert_eq!(parsed.allows(origin), expected, "{allowed} {origin}");
            assert_eq!(AllowedOrigin::parse(&parsed.to_string()), Some(parsed));
        }
        for bad in
            ["shop.example", "ftp://shop.example", "https://", "https://*", "https://a.*.b", "https://a/b"]
        {
            assert_eq!(AllowedOrigin::parse(bad), None, "{bad}");
        }
    }
}
