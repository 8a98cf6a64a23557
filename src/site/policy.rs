//! How long browsers and caches may keep which file: the first rule whose pattern fits its path. No I/O.
//!
//! `*` stands for anything within a name, `**` for anything in folders too, `{hash}` for a piece of a name that tells one
//! build from another. A pattern without `/` is one for names, whatever folder they are in.

use http::HeaderValue;

/// The shortest of what bundlers put into names: Vite and Rollup 8, webpack 20, Parcel 8, esbuild 8.
const SHORTEST_HASH: usize = 8;
const LONGEST_HASH: usize = 64;

/// Values of `Cache-Control`.
#[derive(Debug)]
pub(super) struct CacheControl {
    rules: Vec<(Pattern, Option<HeaderValue>)>,
    otherwise: Option<HeaderValue>,
}

impl CacheControl {
    pub(super) fn new(
        rules: Vec<(Pattern, Option<HeaderValue>)>,
        otherwise: Option<HeaderValue>,
    ) -> Self {
        Self { rules, otherwise }
    }

    /// For the file at `path`, below the root.
    pub(super) fn of(&self, path: &str) -> Option<HeaderValue> {
        let rule = self.rules.iter().find(|(pattern, _)| pattern.fits(path));
        rule.map_or(&self.otherwise, |(_, value)| value).clone()
    }
}

/// Which files a rule is for.
#[derive(Debug)]
pub(super) struct Pattern {
    pieces: Vec<Piece>,
    /// It is one for names.
    is_for_names: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Byte(u8),
    /// `*`
    Name,
    /// `**`
    Anything,
    /// `**/`: no folder, or some.
    Folders,
    /// `{hash}`
    Hash,
}

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        const PIECES: [(&str, Piece); 4] = [
            ("**/", Piece::Folders),
            ("**", Piece::Anything),
            ("*", Piece::Name),
            ("{hash}", Piece::Hash),
        ];
        let mut pieces = Vec::new();
        let mut rest = text.strip_prefix('/').unwrap_or(text).as_bytes();
        while let Some((byte, behind)) = rest.split_first() {
            let known = PIECES
                .into_iter()
                .find_map(|(name, piece)| Some((piece, rest.strip_prefix(name.as_bytes())?)));
            let (piece, behind) = known.unwrap_or((Piece::Byte(*byte), behind));
            pieces.push(piece);
            rest = behind;
        }
        Self {
            pieces,
            is_for_names: !text.contains('/'),
        }
    }

    fn fits(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        let text = if self.is_for_names { name } else { path };
        self.fits_whole(text.as_bytes())
    }

    /// Notes for each place in the text how much of the pattern may lie before it: the work is bounded by the product of
    /// their lengths, whatever they are.
    fn fits_whole(&self, text: &[u8]) -> bool {
        let width = self.pieces.len() + 1;
        // Longest hash: it reaches so far beyond the present place.
        let mut reached = vec![false; (text.len() + LONGEST_HASH + 1) * width];
        reached[0] = true;
        for at in 0..=text.len() {
            for (number, piece) in self.pieces.iter().enumerate() {
                let here = at * width + number;
                if !reached[here] {
                    continue;
                }
                let next = text.get(at).copied();
                match piece {
                    Piece::Byte(byte) => reached[here + width + 1] |= next == Some(*byte),
                    Piece::Name => {
                        reached[here + 1] = true;
                        reached[here + width] |= next.is_some_and(|byte| byte != b'/');
                    }
                    Piece::Anything => {
                        reached[here + 1] = true;
                        reached[here + width] |= next.is_some();
                    }
                    Piece::Folders => {
                        let begins = at == 0 || text[at - 1] == b'/';
                        reached[here + 1] |= begins;
                        reached[here + width] |= next.is_some();
                    }
                    Piece::Hash => {
                        let rest = &text[at..];
                        for length in SHORTEST_HASH..=rest.len().min(LONGEST_HASH) {
                            reached[here + length * width + 1] |= is_hash(&rest[..length]);
                        }
                    }
                }
            }
        }
        reached[text.len() * width + self.pieces.len()]
    }
}

/// Letters and digits, at least one of each: letters alone are a word, digits alone a date. A hash that is taken for a word
/// is asked for again, which is no harm; a word that was taken for a hash would be kept for ever.
fn is_hash(text: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    text.iter().all(plain)
        && text.iter().any(u8::is_ascii_alphabetic)
        && text.iter().any(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, path: &str) -> bool {
        Pattern::new(pattern).fits(path)
    }

    #[test]
    fn patterns_fit_names_and_paths() {
        for (pattern, path, expected) in [
            ("*.html", "index.html", true),
            ("*.html", "docs/index.html", true),
            ("*.html", "index.html.bak", false),
            ("/*.html", "index.html", true),
            ("/*.html", "docs/index.html", false),
            ("assets/*", "assets/app.js", true),
            ("assets/*", "assets/img/a.png", false),
            ("assets/*", "old/assets/app.js", false),
            ("assets/**", "assets/img/a.png", true),
            ("/assets/**", "assets/a.png", true),
            ("**/img/*", "img/a.png", true),
            ("**/img/*", "a/b/img/a.png", true),
            ("**/img/*", "a/bimg/a.png", false),
            ("**", "any/thing", true),
            ("index.html", "docs/index.html", true),
            ("", "a", false),
            ("**a**a**a**a**a**a**b", &"a".repeat(4000), false),
            ("docs/**/*.js", "docs/a.js", true),
            ("docs/**/*.js", "docs/a/b/c.js", true),
            ("ü*", "über.html", true),
        ] {
            assert_eq!(fits(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn hashes_are_told_from_words() {
        for name in [
            "app.3f2a1b9c.js",
            "index-BkX92_aZ.js",
            "chunk-PQ3XJ4K2.js",
            "main.8e0d62a03cd1f7b2a4e6.chunk.js",
            "app.0123456789abcdef0123456789abcdef.css",
        ] {
            assert!(fits("*{hash}*", name), "{name}");
        }
        assert!(fits("*.{hash}.js", "app.3f2a1b9c.js"));
        assert!(fits("*-{hash}.*", "index-BkX92_aZ.js"));
        for name in [
            "app.js",
            "bootstrap.min.js",
            "jquery-3.7.1.min.js",
            "report-20260131.pdf",
            "user-settings.js",
            "README_FIRST.md",
            "photo2.jpg",
            "INTRODUCTION.html",
            "userSettings.js",
        ] {
            assert!(!fits("*{hash}*", name), "{name}");
        }
    }
}
