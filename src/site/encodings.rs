//! Which encodings of a file a client takes (RFC 9110 12.5.3). No I/O.

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

/// How the bytes of a file are sent. The later of two that a client likes as well is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
    Brotli,
}

impl Encoding {
    pub(super) const ALL: [Self; 4] = [Self::Identity, Self::Gzip, Self::Zstd, Self::Brotli];
    pub(super) const COMPRESSED: [Self; 3] = [Self::Gzip, Self::Zstd, Self::Brotli];

    /// For `Content-Encoding`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Brotli => "br",
        }
    }

    /// What stands behind the name of a file that was compressed beforehand.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
            Self::Brotli => ".br",
        }
    }
}

/// Thousandths: 1000 is `q=1`, 0 is refused.
type Weight = u16;

/// What `Accept-Encoding` says of each of `Encoding::ALL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Accepted([Weight; 4]);

impl Accepted {
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let (mut named, mut other) = ([None; 4], None);
        let values = headers.get_all(ACCEPT_ENCODING).iter();
        let values = values.filter_map(|value| value.to_str().ok());
        for item in values.flat_map(|value| value.split(',')) {
            let (name, weight) = match item.split_once(';') {
                Some((name, parameters)) => (name.trim(), weight(parameters)),
                None => (item.trim(), Some(1000)),
            };
            if name == "*" {
                other = weight;
            }
            let is_named = |encoding: &Encoding| {
                let legacy = *encoding == Encoding::Gzip && name.eq_ignore_ascii_case("x-gzip");
                name.eq_ignore_ascii_case(encoding.name()) || legacy
            };
            if let Some(at) = Encoding::ALL.iter().position(is_named) {
                named[at] = weight;
            }
        }
        let mut weights = named.map(|weight| weight.or(other).unwrap_or(0));
        // What nobody speaks of is acceptable, and liked least.
        weights[0] = named[0].or(other).unwrap_or(1);
        Self(weights)
    }

    /// The best of those that are `there`. `Identity` where none is acceptable: a file in an encoding that was not asked
    /// for is still better than none.
    pub(super) fn best(self, there: impl Fn(Encoding) -> bool) -> Encoding {
        let weighted = Encoding::ALL.into_iter().zip(self.0);
        weighted
            .filter(|(encoding, weight)| *weight > 0 && there(*encoding))
            .max_by_key(|(encoding, weight)| (*weight, *encoding))
            .map_or(Encoding::Identity, |(encoding, _)| encoding)
    }
}

/// `q=0.5` among parameters.
fn weight(parameters: &str) -> Option<Weight> {
    let mut parameters = parameters.split(';').map(str::trim);
    let Some(value) = parameters.find_map(|text| {
        let (name, value) = text.split_once('=')?;
        name.trim_end()
            .eq_ignore_ascii_case("q")
            .then(|| value.trim())
    }) else {
        return Some(1000);
    };
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let is_number = fraction.len() <= 3 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let thousandths: Weight = format!("{fraction:0<3}")
        .parse()
        .ok()
        .filter(|_| is_number)?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(accept: &str, there: &[Encoding]) -> &'static str {
        let mut headers = HeaderMap::new();
        if accept != "none" {
            headers.insert(ACCEPT_ENCODING, accept.parse().unwrap());
        }
        let accepted = Accepted::read(&headers);
        accepted.best(|encoding| there.contains(&encoding)).name()
    }

    #[test]
    fn the_heaviest_wins_and_the_better_among_equals() {
        let all = Encoding::ALL;
        for (accept, expected) in [
            ("none", "identity"),
            ("", "identity"),
            ("gzip", "gzip"),
            ("GZIP", "gzip"),
            ("x-gzip", "gzip"),
            ("gzip, deflate, br, zstd", "br"),
            ("gzip, deflate, zstd", "zstd"),
            ("br;q=0, gzip;q=0.5", "gzip"),
            ("br;q=0.2, gzip;q=0.200", "br"),
            ("br;q=0.1, gzip ; Q=0.9", "gzip"),
            ("gzip;q=0.5, identity", "identity"),
            ("identity;q=0.1, gzip;q=0.5", "gzip"),
            ("*", "br"),
            ("*;q=0", "identity"),
            ("br;q=0, *", "zstd"),
            ("gzip;q=0", "identity"),
            ("gzip;q=0.000", "identity"),
            ("gzip;q=2", "identity"),
            ("gzip;q=0.1234", "identity"),
            ("gzip;q=", "identity"),
            ("gzip;level=1", "gzip"),
            ("bretagne, gzipped", "identity"),
        ] {
            assert_eq!(best(accept, &all), expected, "{accept}");
        }
    }

    #[test]
    fn only_what_is_there_is_sent() {
        let there = [Encoding::Identity, Encoding::Gzip];
        assert_eq!(best("br, gzip;q=0.1", &there), "gzip");
        assert_eq!(best("br", &there), "identity");
        assert_eq!(best("br, identity;q=0", &there), "identity");
    }
}
