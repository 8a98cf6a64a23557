//! What the request's conditions and its range make of an answer (RFC 9110 13 and 14). No I/O.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method};

/// What is known of the bytes that would be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Current<'a> {
    /// Strong, in its quotes.
    pub(super) tag: Option<&'a str>,
    pub(super) modified: Option<SystemTime>,
    pub(super) length: u64,
}

/// How a request that would be answered with 200 is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Whole,
    /// 206, of this many bytes from the first one on.
    Part {
        from: u64,
        length: u64,
    },
    /// 304.
    NotModified,
    /// 412.
    Failed,
    /// 416.
    Unsatisfiable,
}

/// In the order of RFC 9110 13.2.2.
pub(super) fn judge(head: &Parts, current: Current<'_>) -> Verdict {
    let headers = &head.headers;
    if headers.contains_key(IF_MATCH) {
        if !matches(headers, &IF_MATCH, |tag, weak| {
            !weak && current.tag == Some(tag)
        }) {
            return Verdict::Failed;
        }
    } else if let Some(since) = date(headers, &IF_UNMODIFIED_SINCE)
        && current.modified.is_some_and(|modified| modified > since)
    {
        return Verdict::Failed;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if matches(headers, &IF_NONE_MATCH, |tag, _weak| {
            current.tag == Some(tag)
        }) {
            return Verdict::NotModified;
        }
    } else if let Some(since) = date(headers, &IF_MODIFIED_SINCE)
        && current.modified.is_some_and(|modified| modified <= since)
    {
        return Verdict::NotModified;
    }
    // Ranges are defined for GET alone (14.2).
    if head.method == Method::GET && headers.contains_key(RANGE) && is_same(headers, current) {
        return range(headers, current.length);
    }
    Verdict::Whole
}

/// The time that a header names; what is none is ignored.
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let text = headers.get(name)?.to_str().ok()?;
    httpdate::parse_http_date(text).ok()
}

/// True when one of the tags listed fits, or any would do. A list that cannot be read ends where it is wrong.
fn matches(headers: &HeaderMap, name: &HeaderName, fits: impl Fn(&str, bool) -> bool) -> bool {
    let values = headers.get_all(name).iter();
    values.filter_map(|value| value.to_str().ok()).any(|list| {
        if list.trim() == "*" {
            return true;
        }
        let mut rest = list;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            let (is_weak, quoted) = match rest.strip_prefix("W/") {
                Some(quoted) => (true, quoted),
                None => (false, rest),
            };
            let Some((tag, behind)) = tag(quoted) else {
                return false;
            };
            if fits(tag, is_weak) {
                return true;
            }
            rest = behind;
        }
    })
}

/// A tag with its quotes, and what stands behind it. A comma may stand within.
fn tag(text: &str) -> Option<(&str, &str)> {
    let end = text.strip_prefix('"')?.find('"')? + 2;
    Some(text.split_at(end))
}

/// 13.1.5: a part is sent only of the version that the client has the rest of, and a date tells versions apart only if
/// there can have been no other within its second (8.8.2.2).
fn is_same(headers: &HeaderMap, current: Current<'_>) -> bool {
    let Some(condition) = headers.get(IF_RANGE) else {
        return true;
    };
    let Ok(condition) = condition.to_str() else {
        return false;
    };
    if condition.starts_with(['"', 'W']) && condition.contains('"') {
        return current.tag == Some(condition);
    }
    let Some(modified) = current.modified else {
        return false;
    };
    let is_over = SystemTime::now()
        .duration_since(modified)
        .is_ok_and(|age| age >= Duration::from_secs(1));
    is_over && httpdate::parse_http_date(condition).is_ok_and(|date| date == modified)
}

/// One range of bytes. What is wrong, of another unit or more than one is ignored, as 14.2 allows.
fn range(headers: &HeaderMap, size: u64) -> Verdict {
    let mut ranges = headers.get_all(RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else {
        return Verdict::Whole;
    };
    let Some((unit, range)) = range.to_str().ok().and_then(|text| text.split_once('=')) else {
        return Verdict::Whole;
    };
    let Some((first, last)) = range.trim().split_once('-') else {
        return Verdict::Whole;
    };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Verdict::Whole;
    }
    let (from, to) = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => (first, last.min(size.saturating_sub(1))),
        (Some(first), None) if last.is_empty() => (first, size.saturating_sub(1)),
        (None, Some(0)) if first.is_empty() => return Verdict::Unsatisfiable,
        (None, Some(count)) if first.is_empty() => {
            (size.saturating_sub(count), size.saturating_sub(1))
        }
        _ => return Verdict::Whole,
    };
    if from >= size {
        return Verdict::Unsatisfiable;
    }
    Verdict::Part {
        from,
        length: to - from + 1,
    }
}

/// Digits and nothing else; a number beyond all files is as good as any other such.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Whole seconds, as HTTP counts. `None` for times that mean "unknown", as reproducible builds write them, and for those to
/// come.
pub(super) fn http_time(seconds: i64) -> Option<SystemTime> {
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 1)?;
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    (time <= SystemTime::now()).then_some(time)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn asked(method: Method, headers: &[(&str, &str)]) -> Verdict {
        let mut request = Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let current = Current {
            tag: Some("\"a,b\""),
            modified: httpdate::parse_http_date(DATE).ok(),
            length: 100,
        };
        judge(&head, current)
    }

    fn get(headers: &[(&str, &str)]) -> Verdict {
        asked(Method::GET, headers)
    }

    fn part(from: u64, length: u64) -> Verdict {
        Verdict::Part { from, length }
    }

    #[test]
    fn conditions_are_asked_in_their_order() {
        use Verdict::{Failed, NotModified, Whole};
        let (tag, other) = ("\"a,b\"", "\"other\"");
        for (headers, expected) in [
            (vec![("if-match", tag)], Whole),
            (vec![("if-match", "*")], Whole),
            (vec![("if-match", "W/\"a,b\"")], Failed),
            (vec![("if-match", "\"x\", \"a,b\"")], Whole),
            (vec![("if-match", other)], Failed),
            (vec![("if-match", other), ("if-none-match", tag)], Failed),
            (
                vec![("if-match", tag), ("if-unmodified-since", EARLIER)],
                Whole,
            ),
            (vec![("if-unmodified-since", EARLIER)], Failed),
            (vec![("if-unmodified-since", DATE)], Whole),
            (vec![("if-unmodified-since", "yesterday")], Whole),
            (vec![("if-none-match", tag)], NotModified),
            (vec![("if-none-match", "W/\"a,b\"")], NotModified),
            (
                vec![("if-none-match", "\"x\",W/\"a,b\" , \"y\"")],
                NotModified,
            ),
            (vec![("if-none-match", " * ")], NotModified),
            (vec![("if-none-match", "\"a\"")], Whole),
            (vec![("if-none-match", "a,b")], Whole),
            (
                vec![("if-none-match", other), ("if-none-match", tag)],
                NotModified,
            ),
            (
                vec![("if-none-match", other), ("if-modified-since", LATER)],
                Whole,
            ),
            (vec![("if-modified-since", DATE)], NotModified),
            (vec![("if-modified-since", LATER)], NotModified),
            (vec![("if-modified-since", EARLIER)], Whole),
            (
                vec![("if-modified-since", "Sunday, 06-Nov-94 08:49:37 GMT")],
                NotModified,
            ),
            (
                vec![("if-none-match", tag), ("range", "bytes=0-0")],
                NotModified,
            ),
            (
                vec![("if-none-match", other), ("range", "bytes=0-0")],
                part(0, 1),
            ),
        ] {
            assert_eq!(get(&headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn one_range_of_bytes_is_understood() {
        use Verdict::{Unsatisfiable, Whole};
        for (range, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=10-", part(10, 90)),
            ("bytes=-10", part(90, 10)),
            ("bytes=-1000", part(0, 100)),
            ("bytes=90-1000", part(90, 10)),
            ("Bytes= 1-2 ", part(1, 2)),
            ("bytes=99-99999999999999999999999", part(99, 1)),
            ("bytes=100-", Unsatisfiable),
            ("bytes=99999999999999999999999-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=5-4", Whole),
            ("bytes=0-1,3-4", Whole),
            ("bytes=-", Whole),
            ("bytes=+1-2", Whole),
            ("bytes=a-b", Whole),
            ("bytes=1-2-3", Whole),
            ("bytes", Whole),
            ("lines=1-2", Whole),
        ] {
            assert_eq!(get(&[("range", range)]), expected, "{range}");
        }
        let twice = [("range", "bytes=0-0"), ("range", "bytes=1-1")];
        assert_eq!(get(&twice), Whole);
        assert_eq!(asked(Method::HEAD, &[("range", "bytes=0-0")]), Whole);
    }

    #[test]
    fn a_range_is_of_the_version_that_the_client_has() {
        for (condition, expected) in [
            ("\"a,b\"", part(0, 1)),
            ("W/\"a,b\"", Verdict::Whole),
            ("\"other\"", Verdict::Whole),
            (DATE, part(0, 1)),
            (LATER, Verdict::Whole),
            (EARLIER, Verdict::Whole),
            ("Wed", Verdict::Whole),
        ] {
            let headers = [("range", "bytes=0-0"), ("if-range", condition)];
            assert_eq!(get(&headers), expected, "{condition}");
        }
    }

    #[test]
    fn a_date_within_this_second_tells_no_versions_apart() {
        let now = SystemTime::now();
        let date = httpdate::fmt_http_date(now);
        let modified = httpdate::parse_http_date(&date).ok();
        let current = |modified| Current {
            tag: None,
            modified,
            length: 1,
        };
        let mut headers = HeaderMap::new();
        headers.insert(IF_RANGE, date.parse().unwrap());
        // Whole seconds: "now" was up to one second ago.
        let is_young =
            modified.is_some_and(|at| now.duration_since(at).unwrap() < Duration::from_millis(900));
        assert!(!is_young || !is_same(&headers, current(modified)));
        assert!(!is_same(&headers, current(None)));
    }

    #[test]
    fn times_that_mean_nothing_are_not_told() {
        for seconds in [-1, 0, 1, i64::MAX] {
            assert_eq!(http_time(seconds), None, "{seconds}");
        }
        assert!(http_time(1_000_000_000).is_some());
    }
}
