//! YAML as files for docker-compose have it, as a tree.
//!
//! This is a part of YAML: mappings and lists as blocks and in brackets, plain, quoted and block scalars, anchors, aliases
//! and `<<`. What is beyond that (tags, keys that are not text, directives) is refused with its line, and never guessed. A
//! parser of all of YAML would be three more crates for one command.

mod block;
mod flow;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Add;

/// More than any such file has. A small file can repeat itself into a huge tree, or a long text.
const MOST_NODES: usize = 100_000;
pub(super) const MOST_TEXT: usize = 4 << 20;
const DEEPEST: usize = 64;

/// A node; all scalars are text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Yaml {
    Scalar(String),
    List(Vec<Yaml>),
    /// In the order of the file.
    Map(Vec<(String, Yaml)>),
}

impl Yaml {
    /// The value of a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The entries of a mapping; nothing else has any.
    pub fn entries(&self) -> &[(String, Self)] {
        if let Self::Map(entries) = self { entries } else { &[] }
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        if let Self::Scalar(text) = self { Some(text) } else { None }
    }

    fn size(&self) -> Size {
        let inside = match self {
            Self::Scalar(text) => Size { nodes: 0, text: text.len() },
            Self::List(items) => items.iter().fold(Size::default(), |size, item| size + item.size()),
            Self::Map(entries) => entries
                .iter()
                .fold(Size::default(), |size, (key, value)| size + Size { nodes: 0, text: key.len() } + value.size()),
        };
        inside + Size { nodes: 1, text: 0 }
    }
}

/// The first document of a file. The error completes a sentence about the file.
pub(super) fn read(text: &str) -> Result<Yaml, String> {
    block::Reader::new(text).document()
}

/// What is wrong, as the end of a sentence about a line.
type Wrong = &'static str;

/// How many nodes there are in a tree, and how many bytes of text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Size {
    nodes: usize,
    text: usize,
}

impl Add for Size {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { nodes: self.nodes + other.nodes, text: self.text + other.text }
    }
}

/// The anchors, and how much has been made.
#[derive(Debug, Default)]
struct Nodes {
    anchors: BTreeMap<String, Yaml>,
    made: Size,
}

impl Nodes {
    fn count(&mut self, more: Size) -> Result<(), Wrong> {
        self.made = self.made + more;
        let is_too_large = self.made.nodes > MOST_NODES || self.made.text > MOST_TEXT;
        if is_too_large { Err("makes it too large, with what is repeated") } else { Ok(()) }
    }

    fn scalar(&mut self, text: impl Into<String>) -> Result<Yaml, Wrong> {
        let scalar = Yaml::Scalar(text.into());
        self.count(scalar.size())?;
        Ok(scalar)
    }

    /// A list or a mapping, whose values have been counted.
    fn node(&mut self) -> Result<(), Wrong> {
        self.count(Size { nodes: 1, text: 0 })
    }

    fn key(&mut self, key: &str) -> Result<(), Wrong> {
        self.count(Size { nodes: 0, text: key.len() })
    }

    fn alias(&mut self, name: &str) -> Result<Yaml, Wrong> {
        let value = self.anchors.get(name).ok_or("refers to an anchor that is not above it")?;
        let (size, value) = (value.size(), value.clone());
        self.count(size)?;
        Ok(value)
    }

    fn anchor(&mut self, name: Option<&str>, value: Yaml) -> Result<Yaml, Wrong> {
        if let Some(name) = name {
            self.count(value.size())?;
            self.anchors.insert(name.to_owned(), value.clone());
        }
        Ok(value)
    }
}

/// A mapping of these entries. `<<` stands for those of other mappings, where it has none of that name itself.
fn mapping(entries: Vec<(String, Yaml)>) -> Result<Yaml, Wrong> {
    let (others, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| key == "<<");
    let mut names: BTreeSet<String> = own.iter().map(|(key, _)| key.clone()).collect();
    if names.len() < own.len() || others.len() > 1 {
        return Err("ends a mapping that has a key twice");
    }
    let maps =
        others.into_iter().flat_map(|(_, value)| if let Yaml::List(items) = value { items } else { vec![value] });
    for map in maps {
        let Yaml::Map(entries) = map else { return Err("ends a mapping whose << is no mapping") };
        own.extend(entries.into_iter().filter(|(key, _)| names.insert(key.clone())));
    }
    Ok(Yaml::Map(own))
}

/// `&name` in front of a value, and the rest.
fn anchor_of(text: &str) -> (Option<&str>, &str) {
    match text.strip_prefix('&') {
        Some(rest) => {
            let (name, rest) = rest.split_once(|letter: char| letter.is_whitespace()).unwrap_or((rest, ""));
            (Some(name), rest.trim_start())
        }
        None => (None, text),
    }
}

/// Without a comment at its end.
fn without_comment(text: &str) -> &str {
    if text.starts_with('#') {
        return "";
    }
    let end = text.find(" #").or_else(|| text.find("\t#")).unwrap_or(text.len());
    text[..end].trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As JSON, which is easier to compare.
    fn shown(yaml: &Yaml) -> String {
        let all = |parts: Vec<String>| parts.join(",");
        match yaml {
            Yaml::Scalar(text) => format!("{text:?}"),
            Yaml::List(items) => format!("[{}]", all(items.iter().map(shown).collect())),
            Yaml::Map(entries) => {
                format!("{{{}}}", all(entries.iter().map(|(key, value)| format!("{key}:{}", shown(value))).collect()))
            }
        }
    }

    #[track_caller]
    fn reads(text: &str, expected: &str) {
        assert_eq!(read(text).as_ref().map(shown), Ok(expected.to_owned()), "{text}");
    }

    #[track_caller]
    fn refuses(text: &str, part: &str) {
        let wrong = read(text).unwrap_err();
        assert!(wrong.contains(part), "{part} in {wrong}: {text}");
    }

    #[test]
    fn mappings_and_lists_by_indentation_and_in_brackets() {
        reads("# a\n---\na: 1 # one\nb:\n  c: x y\n  d:\n", r#"{a:"1",b:{c:"x y",d:""}}"#);
        reads("a:\n- 1\n-  b: 2\n   c: 3\n- - 4\n  - 5\nd: e\n", r#"{a:["1",{b:"2",c:"3"},["4","5"]],d:"e"}"#);
        reads("a:\n    - x\n    -\n        b: c\n", r#"{a:["x",{b:"c"}]}"#);
        reads("a: [b, 'c, d', {e: f, g: }, []]\nh: {}", r#"{a:["b","c, d",{e:"f",g:""},[]],h:{}}"#);
        reads("a: [\n  \"b\", # first\n  c,\n]\n", r#"{a:["b","c"]}"#);
        reads("\"a\": b\n'c d': http://x:80/#e\n", r#"{a:"b",c d:"http://x:80/#e"}"#);
        reads("a: b\n...\nc: d\n", r#"{a:"b"}"#);
        reads("", "{}");
    }

    #[test]
    fn scalars_of_one_line_and_of_several() {
        reads(r#"a: "b\n\"\x41\u00e9 # c""#, "{a:\"b\\n\\\"A\u{e9} # c\"}");
        reads("a: 'it''s'\nb: \"c\n  d\"\n", r#"{a:"it's",b:"c d"}"#);
        reads("a: b\n  c\n\n  d # e\nf: g\n", r#"{a:"b c\nd",f:"g"}"#);
        reads("a: |\nb: >\n", r#"{a:"",b:""}"#);
        reads("a: >\n  b\n  c\n\n  d\ne: f\n", r#"{a:"b c\nd\n",e:"f"}"#);
        reads("a: |-\n  b: c # d\n    e\n\nf: g\n", r#"{a:"b: c # d\n  e",f:"g"}"#);
    }

    #[test]
    fn anchors_and_what_is_merged() {
        let text = "a: &x\n  b: 1\n  c: 2\nd:\n  <<: *x\n  b: 3\ne: *x\nf: &y text\ng: [*y, *y]\n";
        reads(text, r#"{a:{b:"1",c:"2"},d:{b:"3",c:"2"},e:{b:"1",c:"2"},f:"text",g:["text","text"]}"#);
        reads("a: &x {b: 1}\nc: &z {d: 2}\ne:\n  <<: [*x, *z]\n", r#"{a:{b:"1"},c:{d:"2"},e:{b:"1",d:"2"}}"#);
    }

    #[test]
    fn brackets_over_many_lines_count_once() {
        let list = format!("a: [\n{}]\n", "  b, c, d, e, f, g, h, i, j, k,\n".repeat(190));
        assert_eq!(read(&list).unwrap().get("a").unwrap().size().nodes, 1901);
    }

    #[test]
    fn a_text_that_is_repeated_is_not_made_huge() {
        let text = format!("a: &x {}\nb:\n{}", "y".repeat(1 << 16), "- *x\n".repeat(100));
        refuses(&text, "too large");
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_line() {
        refuses("a: 1\nb: !reset null\n", "line 2 of it has a tag");
        refuses("a: *x\n", "line 1 of it refers to an anchor");
        refuses("a: 1\n  b: 2\n", "line 2 of it is indented more");
        refuses("  a: 1\nb: 2\n", "line 2 of it is indented less");
        refuses("a: 1\na: 2\n", "has a key twice");
        refuses("a: b: c\n", "has a second colon");
        refuses("a:\n\tb: c\n", "line 2 of it is indented by a tab");
        refuses("a: [b\nc: d\n", "no comma");
        refuses("a: [b\n  c\n", "begins something that is not closed");
        refuses("a: \"b\" c\n", "has something behind a value");
        refuses("? a\n: b\n", "line 1 of it has a key that is not text");
        refuses("a: b\nc\n", "line 2 of it is no KEY: VALUE");
        refuses("a: |2\n    b\n", "a block of text whose header");
        refuses("a: |\n    b\n  c\nd: e\n", "line 3 of it is indented less than the text");
        refuses("just text\nb: c\n", "is indented less");
    }
}
