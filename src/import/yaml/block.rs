//! What indentation says: mappings, lists, and scalars of several lines.

use super::flow::{self, Stop};
use super::{DEEPEST, Nodes, Wrong, Yaml, anchor_of, mapping, without_comment};

/// A value in brackets is no longer than this, because it is read anew for each line.
const LONGEST_FLOW: usize = 1 << 16;
const MOST_LINES: usize = 200;
const UNCLOSED: &str = "begins something that is not closed";

/// The lines, and the next one to be read.
pub(super) struct Reader {
    lines: Vec<String>,
    at: usize,
    nodes: Nodes,
}

/// What a value belongs to, at which indentation.
#[derive(Debug, Clone, Copy)]
enum Of {
    Key(usize),
    /// And where the value of the item begins.
    Item(usize, usize),
}

impl Of {
    const fn indent(self) -> usize {
        match self {
            Self::Key(indent) | Self::Item(indent, _) => indent,
        }
    }
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

fn is_item(text: &str) -> bool {
    text == "-" || text.starts_with("- ")
}

/// A key and what stands behind its colon. None if the text is something else.
fn split_key(text: &str) -> Result<Option<(String, &str)>, Wrong> {
    if text.starts_with(['"', '\'']) {
        let Ok((Yaml::Scalar(key), behind)) = flow::read(text, &mut Nodes::default()) else { return Ok(None) };
        let rest = text[text.len() - behind.len()..].trim_start().strip_prefix(':');
        return Ok(rest.filter(|rest| rest.is_empty() || rest.starts_with(' ')).map(|rest| (key, rest.trim())));
    }
    if text.starts_with(['[', '{', '|', '>', '#', '*']) {
        return Ok(None);
    }
    let shown = without_comment(text);
    let (key, rest) = match shown.split_once(": ") {
        Some((key, _)) => (key, text[key.len() + 1..].trim()),
        None => match shown.strip_suffix(':') {
            Some(key) => (key, ""),
            None => return Ok(None),
        },
    };
    if key.starts_with(['&', '!', '?', '@', '`', '%']) {
        return Err("has a key that is not understood here");
    }
    Ok(Some((key.trim_end().to_owned(), rest)))
}

impl Reader {
    pub fn new(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { lines: text.lines().map(str::to_owned).collect(), at: 0, nodes: Nodes::default() }
    }

    pub fn document(mut self) -> Result<Yaml, String> {
        let found = self.first_document();
        found.map_err(|wrong| format!("line {} of it {wrong}", self.at.min(self.lines.len()).max(1)))
    }

    fn first_document(&mut self) -> Result<Yaml, Wrong> {
        self.skip();
        if self.lines.get(self.at).is_some_and(|line| line.trim_end() == "---") {
            self.at += 1;
        }
        let Some((indent, _)) = self.peek()? else { return Ok(Yaml::Map(Vec::new())) };
        let value = self.block(indent, 0)?;
        if self.peek()?.is_none() {
            return Ok(value);
        }
        self.at += 1;
        Err("is indented less than what it belongs to")
    }

    /// Goes to the next line that is neither empty nor a comment.
    fn skip(&mut self) {
        while let Some(line) = self.lines.get(self.at)
            && (line.trim().is_empty() || line.trim_start().starts_with('#'))
        {
            self.at += 1;
        }
    }

    /// The next line's indentation and text; none at the document's end.
    fn peek(&mut self) -> Result<Option<(usize, String)>, Wrong> {
        self.skip();
        let Some(line) = self.lines.get(self.at) else { return Ok(None) };
        if line.starts_with("---") || line.trim_end() == "..." {
            return Ok(None);
        }
        let (indent, text) = (indent_of(line), line.trim().to_owned());
        if line[indent..].starts_with('\t') {
            self.at += 1;
            return Err("is indented by a tab");
        }
        Ok(Some((indent, text)))
    }

    /// The value that begins in the next line, which has this indentation.
    fn block(&mut self, indent: usize, depth: usize) -> Result<Yaml, Wrong> {
        if depth > DEEPEST {
            self.at += 1;
            return Err("is nested too deeply");
        }
        let (_, text) = self.peek()?.unwrap_or_default();
        if is_item(&text) {
            return self.list(indent, depth);
        }
        self.at += 1;
        if split_key(&text)?.is_some() {
            self.at -= 1;
            return self.map(indent, depth);
        }
        self.value(&text, Of::Key(indent.saturating_sub(1)), depth)
    }

    fn map(&mut self, indent: usize, depth: usize) -> Result<Yaml, Wrong> {
        let mut entries = Vec::new();
        while let Some((found, text)) = self.peek()?.filter(|(found, _)| *found >= indent) {
            self.at += 1;
            if found > indent {
                return Err("is indented more than the one that it stands next to");
            }
            let (key, rest) = split_key(&text)?.ok_or("is no KEY: VALUE")?;
            self.nodes.key(&key)?;
            entries.push((key, self.value(rest, Of::Key(indent), depth)?));
        }
        self.nodes.node()?;
        mapping(entries)
    }

    fn list(&mut self, indent: usize, depth: usize) -> Result<Yaml, Wrong> {
        let mut items = Vec::new();
        while let Some((found, text)) = self.peek()?.filter(|(found, text)| *found >= indent && is_item(text)) {
            self.at += 1;
            if found > indent {
                return Err("is indented more than the one that it stands next to");
            }
            let rest = text[1..].trim_start();
            items.push(self.value(rest, Of::Item(indent, indent + text.len() - rest.len()), depth)?);
        }
        self.nodes.node()?;
        Ok(Yaml::List(items))
    }

    /// The value behind a key or a dash, whose line has been read.
    fn value(&mut self, text: &str, of: Of, depth: usize) -> Result<Yaml, Wrong> {
        let (anchor, text) = anchor_of(text);
        let value = self.unanchored(text, of, depth)?;
        self.nodes.anchor(anchor, value)
    }

    fn unanchored(&mut self, text: &str, of: Of, depth: usize) -> Result<Yaml, Wrong> {
        if without_comment(text).is_empty() {
            return self.below(of, depth);
        }
        // The first key of a mapping, or the first item of a list, on the line of a dash.
        if let Of::Item(_, column) = of
            && (is_item(text) || split_key(text)?.is_some())
        {
            self.at -= 1;
            self.lines[self.at] = " ".repeat(column) + text;
            return self.block(column, depth + 1);
        }
        match text.as_bytes()[0] {
            b'*' => self.nodes.alias(&without_comment(text)[1..]),
            b'!' => Err("has a tag, which is not understood here"),
            b'?' if text.len() == 1 || text.starts_with("? ") => Err("has a key that is not text"),
            b'@' | b'`' | b'%' => Err("begins with a letter that YAML reserves"),
            b'|' | b'>' => self.block_scalar(without_comment(text), of.indent()),
            b'[' | b'{' | b'"' | b'\'' => self.in_brackets(text),
            _ => self.plain(text, of.indent()),
        }
    }

    /// A value that is not on the line of its key. A list may be indented as its key is.
    fn below(&mut self, of: Of, depth: usize) -> Result<Yaml, Wrong> {
        match self.peek()? {
            Some((indent, _)) if indent > of.indent() => self.block(indent, depth + 1),
            Some((indent, text)) if matches!(of, Of::Key(key) if key == indent) && is_item(&text) => {
                self.list(indent, depth + 1)
            }
            _ => self.nodes.scalar(""),
        }
    }

    /// A plain scalar goes on in the lines that are indented more.
    fn plain(&mut self, first: &str, indent: usize) -> Result<Yaml, Wrong> {
        let mut text = without_comment(first).to_owned();
        if text.contains(": ") || text.ends_with(':') {
            return Err("has a second colon; quote the value");
        }
        loop {
            let from = self.at;
            let Some((_, more)) = self.peek()?.filter(|(found, _)| *found > indent) else { break };
            let empty = self.lines[from..self.at].iter().filter(|line| line.trim().is_empty()).count();
            self.at += 1;
            if split_key(&more)?.is_some() {
                return Err("is indented more than the one that it stands next to");
            }
            // One end of a line is a space.
            text.push_str(&if empty == 0 { " ".to_owned() } else { "\n".repeat(empty) });
            text.push_str(without_comment(&more));
        }
        self.nodes.scalar(text)
    }

    /// A value in brackets or quotation marks, together with the lines in which it goes on.
    fn in_brackets(&mut self, first: &str) -> Result<Yaml, Wrong> {
        let mut text = first.to_owned();
        let made = self.nodes.made;
        for _ in 0..MOST_LINES {
            // What was made of the lines so far is made again.
            self.nodes.made = made;
            match flow::read(&text, &mut self.nodes) {
                Ok((value, rest)) if without_comment(rest.trim()).is_empty() => return Ok(value),
                Ok(_) => return Err("has something behind a value"),
                Err(Stop::Wrong(wrong)) => return Err(wrong),
                Err(Stop::Unfinished) => {}
            }
            let next = self.lines.get(self.at).filter(|_| text.len() < LONGEST_FLOW);
            text = text + "\n" + next.ok_or(UNCLOSED)?;
            self.at += 1;
        }
        Err(UNCLOSED)
    }

    /// `|` keeps the ends of lines, `>` makes spaces of them.
    fn block_scalar(&mut self, header: &str, indent: usize) -> Result<Yaml, Wrong> {
        if !["|", ">", "|-", ">-", "|+", ">+"].contains(&header) {
            return Err("has a block of text whose header is not understood here");
        }
        let is_part = |line: &&String| line.trim().is_empty() || indent_of(line) > indent;
        let part: Vec<String> = self.lines[self.at..].iter().take_while(is_part).cloned().collect();
        self.at += part.len();
        let margin = part.iter().find(|line| !line.trim().is_empty()).map_or(0, |line| indent_of(line));
        let is_left_of = |line: &String| !line.trim().is_empty() && indent_of(line) < margin;
        if let Some(at) = part.iter().position(is_left_of) {
            self.at = self.at - part.len() + at + 1;
            return Err("is indented less than the text that it belongs to");
        }
        let mut text = String::new();
        for line in part.iter().map(|line| line.get(margin..).unwrap_or_default()) {
            let is_folded = header.starts_with('>') && !line.is_empty() && !line.starts_with(' ');
            match text.chars().next_back() {
                None => {}
                Some('\n') if is_folded => {}
                Some(_) => text.push(if is_folded { ' ' } else { '\n' }),
            }
            text.push_str(line);
        }
        if !header.ends_with('+') {
            text.truncate(text.trim_end_matches('\n').len());
        }
        if !header.ends_with('-') && !part.is_empty() {
            text.push('\n');
        }
        self.nodes.scalar(text)
    }
}
