//! Lines of `unsafe`, by crate, from the source.
//!
//! Sources are read as tokens, not as syntax trees: so what macros are given, and what they are made of, counts like all else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;
use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};
use serde::Serialize;

/// The hypervisor's crates that may have `unsafe`, by their folders.
const CRATES: [&str; 10] = [
    "hv",
    "hv/abi",
    "hv/console",
    "hv/core",
    "hv/multiboot2",
    "hv/x86",
    "hv/x86-bare",
    "hv/x86-policy",
    "hv/x86-vcpu",
    "trace",
];

/// What a crate has of `unsafe`, tests left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UnsafeLines {
    /// Its folder.
    pub folder: String,
    /// Lines of code, without blank ones and comments.
    pub lines: usize,
    /// How many of these are of the following: from the word `unsafe` to the end of what it stands before.
    pub unsafe_lines: usize,
    /// `unsafe` blocks.
    pub blocks: usize,
    /// `unsafe` functions, their declarations in traits included.
    pub functions: usize,
    /// `unsafe impl`, `unsafe extern` and attributes.
    pub others: usize,
}

impl UnsafeLines {
    /// That of several crates.
    pub fn sum(folder: &str, all: &[Self]) -> Self {
        let of = |number: fn(&Self) -> usize| all.iter().map(number).sum();
        Self {
            folder: folder.into(),
            lines: of(|lines| lines.lines),
            unsafe_lines: of(|lines| lines.unsafe_lines),
            blocks: of(|lines| lines.blocks),
            functions: of(|lines| lines.functions),
            others: of(|lines| lines.others),
        }
    }

    fn add(&mut self, source: &Source) {
        self.lines += source.lines.len();
        self.unsafe_lines += source.unsafe_lines.len();
        self.blocks += source.blocks;
        self.functions += source.functions;
        self.others += source.others;
    }
}

/// What the hypervisor's crates in the repository at `root` have of it.
///
/// # Errors
/// A source file cannot be read, or is no Rust.
pub fn unsafe_lines(root: &Path) -> anyhow::Result<Vec<UnsafeLines>> {
    CRATES
        .iter()
        .map(|folder| {
            let mut lines = UnsafeLines { folder: (*folder).into(), ..UnsafeLines::default() };
            let mut sources = Vec::new();
            for path in sources_in(&root.join(folder).join("src"))? {
                let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                let source = Source::read(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
                sources.push((path, source));
            }
            let tests: Vec<PathBuf> = sources.iter().flat_map(|(path, source)| source.tests_of(path)).collect();
            let is_test = |path: &Path| tests.iter().any(|test| path.with_extension("").starts_with(test));
            sources.iter().filter(|(path, _)| !is_test(path)).for_each(|(_, source)| lines.add(source));
            Ok(lines)
        })
        .collect()
}

fn sources_in(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources_in(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

/// What a source file has.
#[derive(Debug, Default)]
struct Source {
    /// The numbers of its lines of code.
    lines: BTreeSet<usize>,
    unsafe_lines: BTreeSet<usize>,
    blocks: usize,
    functions: usize,
    others: usize,
    /// Modules in files of their own that are for tests only.
    tests: Vec<String>,
}

impl Source {
    fn read(text: &str) -> Result<Self, proc_macro2::LexError> {
        let mut source = Self::default();
        source.walk(text.parse()?);
        let Self { lines, unsafe_lines, .. } = &mut source;
        unsafe_lines.retain(|line| lines.contains(line));
        Ok(source)
    }

    fn walk(&mut self, stream: TokenStream) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut rest = tokens.as_slice();
        while let [token, after @ ..] = rest {
            rest = after;
            // Comments that are documentation have become attributes.
            if let Some((attribute, after)) = attribute(token, after) {
                if word(attribute.first()) == "doc" {
                    rest = after;
                    continue;
                }
                if is_for_tests(&attribute) {
                    let (item, after) = item_at(after);
                    self.tests.extend(module_in_a_file(item));
                    rest = after;
                    continue;
                }
            }
            if word(Some(token)) == "unsafe" {
                self.count(token.span(), after);
            }
            match token {
                TokenTree::Group(group) => {
                    self.lines.extend([group.span_open(), group.span_close()].map(|span| span.start().line));
                    self.walk(group.stream());
                }
                // Text may have several lines.
                token => self.lines.extend(all_lines(token.span(), token.span())),
            }
        }
    }

    /// Counts what `unsafe` stands before: `after`.
    fn count(&mut self, at: Span, after: &[TokenTree]) {
        let item = match after {
            [external, TokenTree::Literal(_), item @ ..] if word(Some(external)) == "extern" => item,
            [external, item @ ..] if word(Some(external)) == "extern" => item,
            item => item,
        };
        let end = match (after.first(), item) {
            (Some(TokenTree::Group(block)), _) => {
                let kind = if block.delimiter() == Delimiter::Brace { &mut self.blocks } else { &mut self.others };
                *kind += 1;
                Some(block.span_close())
            }
            // The type of a function has no name.
            (_, [function, TokenTree::Group(_), ..]) if word(Some(function)) == "fn" => None,
            (_, [function, ..]) if word(Some(function)) == "fn" => {
                self.functions += 1;
                end_of(item_at(item).0)
            }
            _ => {
                self.others += 1;
                end_of(item_at(after).0)
            }
        };
        self.unsafe_lines.extend(end.into_iter().flat_map(|end| all_lines(at, end)));
    }

    /// Where the modules for tests of the file at `path` lie, without `.rs`.
    fn tests_of(&self, path: &Path) -> Vec<PathBuf> {
        let dir = path.parent().unwrap_or(Path::new(""));
        let stem = path.file_stem().unwrap_or_default();
        let dir = if ["lib", "main", "mod"].iter().any(|root| stem == *root) { dir.into() } else { dir.join(stem) };
        self.tests.iter().map(|name| dir.join(name)).collect()
    }
}

/// The tokens of an attribute that begins with `token`, and what comes behind it.
fn attribute<'t>(token: &TokenTree, after: &'t [TokenTree]) -> Option<(Vec<TokenTree>, &'t [TokenTree])> {
    let TokenTree::Punct(sign) = token else { return None };
    // An inner one has a `!`.
    let after = match after {
        [TokenTree::Punct(bang), after @ ..] if bang.as_char() == '!' => after,
        after => after,
    };
    match after {
        [TokenTree::Group(group), after @ ..] if sign.as_char() == '#' && group.delimiter() == Delimiter::Bracket => {
            Some((group.stream().into_iter().collect(), after))
        }
        _ => None,
    }
}

/// Whether an attribute is `cfg(test)`, or `cfg(all(test, ...))`.
fn is_for_tests(attribute: &[TokenTree]) -> bool {
    let inside = |group: &Group| group.stream().into_iter().collect::<Vec<_>>();
    let [TokenTree::Ident(name), TokenTree::Group(condition)] = attribute else { return false };
    let condition = inside(condition);
    let is_test = |tokens: &[TokenTree]| word(tokens.first()) == "test";
    let of_all = |tokens: &[TokenTree]| match tokens {
        [all, TokenTree::Group(group)] if word(Some(all)) == "all" => is_test(&inside(group)),
        _ => false,
    };
    name == "cfg" && (is_test(&condition) || of_all(&condition))
}

/// Up to the end of the item that begins here, attributes and signature included, and what comes behind it.
fn item_at(tokens: &[TokenTree]) -> (&[TokenTree], &[TokenTree]) {
    let is_end = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(sign) => sign.as_char() == ';',
        _ => false,
    };
    tokens.split_at(tokens.iter().position(is_end).map_or(tokens.len(), |index| index + 1))
}

/// The name of the module, if that is what an item is and it is in a file of its own.
fn module_in_a_file(item: &[TokenTree]) -> Option<String> {
    match item {
        [.., module, name, TokenTree::Punct(_)] if word(Some(module)) == "mod" => Some(word(Some(name))),
        _ => None,
    }
}

/// The word that a token is; empty if it is none.
fn word(token: Option<&TokenTree>) -> String {
    if let Some(TokenTree::Ident(word)) = token { word.to_string() } else { String::new() }
}

/// Where an item ends.
fn end_of(item: &[TokenTree]) -> Option<Span> {
    item.last().map(TokenTree::span)
}

/// The numbers of the lines from one token to another.
fn all_lines(from: Span, to: Span) -> std::ops::RangeInclusive<usize> {
    from.start().line..=to.end().line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> UnsafeLines {
        let mut lines = UnsafeLines::default();
        lines.add(&Source::read(text).unwrap());
        lines
    }

    fn expected(lines: usize, unsafe_lines: usize, [blocks, functions, others]: [usize; 3]) -> UnsafeLines {
        UnsafeLines { folder: String::new(), lines, unsafe_lines, blocks, functions, others }
    }

    #[test]
    fn what_is_unsafe_is_counted() {
        let text = "//! unsafe { not this }\n\n/// unsafe { nor this }\nunsafe fn a() {\n    // unsafe { nor this }\n\n    \
                    let b = unsafe { c() }; // unsafe { }\n}\n#![forbid(unsafe_code)]\nunsafe impl Sync for A {}\n\
                    #[unsafe(no_mangle)]\npub unsafe extern \"C\" fn d();\nlet e = \"unsafe {\n}\";\n";
        assert_eq!(of(text), expected(9, 6, [1, 2, 2]));
        // A line is counted once, and a type is no function.
        assert_eq!(of("unsafe { unsafe { a() } }\ntype F = unsafe extern \"C\" fn(u8);"), expected(2, 1, [2, 0, 0]));
        assert_eq!(of("unsafe extern \"C\" {\n    fn a();\n}\nfn b(c: unsafe fn()) {}"), expected(4, 3, [0, 0, 1]));
        assert_eq!(of("unsafe extern {}\nfn a() {}\nunsafe extern fn b();"), expected(3, 2, [0, 1, 1]));
    }

    #[test]
    fn all_lines_of_a_block_are_unsafe() {
        let text = "fn a() {\n    unsafe {\n        asm!(\n            \"nop\",\n\n            // Why.\n            options()\n        \
                    )\n    };\n}";
        assert_eq!(of(text), expected(8, 6, [1, 0, 0]));
    }

    #[test]
    fn macros_count_as_all_else() {
        let text = "macro_rules! m {\n    ($name:ident) => {\n        unsafe extern \"C\" fn $name() -> ! {\n            \
                    naked_asm!()\n        }\n    };\n}\nvec![unsafe { a() }];";
        assert_eq!(of(text), expected(8, 4, [1, 1, 0]));
    }

    #[test]
    fn tests_do_not_count() {
        let text = "#[cfg(not(test))]\nfn a() {}\n#[cfg(test)]\n#[path]\nmod tests {\n    unsafe { b() }\n}\nfn c() {}\n\
                    #[cfg(all(test, not(loom)))]\nmod model;\nfn d() {}";
        let source = Source::read(text).unwrap();
        assert_eq!((source.lines.len(), source.blocks, &*source.tests), (4, 0, &["model".to_owned()][..]));
        assert_eq!(source.tests_of(Path::new("a/mod.rs")), [Path::new("a/model")]);
        assert_eq!(source.tests_of(Path::new("a/b.rs")), [Path::new("a/b/model")]);
        assert!(Source::read("fn a( {").is_err());
    }
}
