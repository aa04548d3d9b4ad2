//! Lines of a log: whatever they are, their HTML has no tag but ours, and shows what a plain reading shows.

use vte::{Params, Parser, Perform};

use crate::server::page::{folds, links, marks, terminal};

/// A log, line by line: as HTML it is balanced, has our three tags with classes of ours, and links that may be
/// followed; its text is what a reading without any cleverness has; marks and folds come to an end.
pub fn lines(input: &[u8]) -> bool {
    let mut folder = folds::Folder::default();
    let mut shows_something = false;
    let mut last = 0;
    for (line, number) in input.split(|byte| *byte == b'\n').zip(1..) {
        let mut html = String::new();
        let cut = terminal::html(line, &mut html);
        let shown = read(&html);
        let wanted = plainly(line);
        assert!(cut || shown == wanted, "{}\n{html}\n{shown:?}\n{wanted:?}", line.escape_ascii());
        let mark = marks::mark(line);
        folder.line(number, line, mark.is_some());
        shows_something |= html.contains('<');
        last = number;
    }
    for fold in folder.folds(last) {
        assert!(fold.first <= fold.last && fold.last <= last && fold.depth < folds::DEPTH_MAX, "{fold:?}");
    }
    shows_something
}

/// The text of a piece of HTML. Panics where it has anything but what lines are made of.
fn read(html: &str) -> String {
    let mut text = String::new();
    let mut open = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find(['<', '>', '"', '\'']) {
        assert!(rest[at..].starts_with('<'), "a bare {} in {html}", &rest[at..=at]);
        text.push_str(&unescaped(&rest[..at]));
        let end = rest[at..].find('>').expect("a tag ends") + at;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{html}");
        } else {
            open.push(opened(tag));
        }
    }
    assert!(open.is_empty(), "{open:?} in {html}");
    text.push_str(&unescaped(rest));
    text
}

/// The name of a tag that opens, which is one of ours.
fn opened(tag: &str) -> &str {
    let (name, attributes) = tag.split_once(' ').expect("all of ours have attributes");
    let sound = match name {
        "i" => attributes == "class=\"c\"",
        "span" => attributes.strip_prefix("class=\"").and_then(|rest| rest.strip_suffix('"')).is_some_and(|classes| {
            classes.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b' ')
        }),
        "a" => attributes
            .strip_prefix("href=\"")
            .and_then(|rest| rest.strip_suffix("\" rel=\"noopener noreferrer nofollow\" target=\"_blank\""))
            .is_some_and(|url| links::allowed(unescaped(url).as_bytes()).is_some()),
        _ => false,
    };
    assert!(sound, "<{tag}> is none of ours");
    name
}

fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        let known = [("&amp;", '&'), ("&lt;", '<'), ("&gt;", '>'), ("&quot;", '"'), ("&#39;", '\'')];
        let (entity, char) =
            known.into_iter().find(|(entity, _)| rest[at..].starts_with(entity)).expect("an entity of ours");
        out.push_str(&rest[..at]);
        out.push(char);
        rest = &rest[at + entity.len()..];
    }
    out + rest
}

/// What a line shows, by as little thought as possible: a column, and characters that are put there.
fn plainly(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
    let mut plain = Plain::default();
    Parser::new().advance(&mut plain, text.as_bytes());
    while plain.chars.last() == Some(&None) {
        plain.chars.pop();
    }
    let mut shown = String::new();
    let mut before = ' ';
    for char in plain.chars {
        let char = char.unwrap_or(' ');
        shown.push_str(&terminal::picture(char, before).unwrap_or_else(|| char.to_string()));
        before = char;
    }
    shown
}

#[derive(Default)]
struct Plain {
    /// `None` where it was erased.
    chars: Vec<Option<char>>,
    column: usize,
}

impl Perform for Plain {
    fn print(&mut self, char: char) {
        if self.column == self.chars.len() {
            self.chars.push(None);
        }
        self.chars[self.column] = Some(char);
        self.column += 1;
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\r' => self.column = 0,
            0x08 => self.column = self.column.saturating_sub(1),
            _ => self.print(char::from(byte)),
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        let first = params.iter().next().map_or(0, |param| param[0]);
        match (action, first) {
            _ if ignore || !intermediates.is_empty() => {}
            ('G', 0 | 1) => self.column = 0,
            ('K', 0..=2) => {
                if first != 1 {
                    self.chars.truncate(self.column);
                }
                if first != 0 {
                    self.chars.iter_mut().take(self.column + 1).for_each(|char| *char = None);
                }
            }
            _ => {}
        }
    }
}
