//! One line of a log as HTML: what a terminal would show of it, and nothing that could do anything.
//!
//! A log is hostile. Bytes go through the parser of `vte` into a virtual line of bounded width, and
//! only then into HTML: every character escaped, three tags (`span`, `i`, `a`), classes from a fixed
//! set and no inline style, links only to `http`, `https` and `mailto`. Honoured are colours and
//! styles (SGR), carriage return, backspace, erasing in the line and OSC 8 links; other escapes are
//! dropped. Characters that show nothing, or turn the order of others around, are made visible.
//!
//! Each line begins without colour, whatever the line before set: a window into the middle of a log
//! shows the same as the whole would, and one stray escape cannot paint everything after it.
//!
//! Linear in the bytes, whatever they are: a cell is erased at most as often as it was written.

use std::borrow::Cow;
use std::fmt::Write as _;

use vte::{Params, Parser, Perform};

use super::links;

/// Columns of the virtual line. What goes beyond is not shown, and the reader is told.
pub const COLUMNS_MAX: usize = 10_000;
/// Bytes of a line that are looked at.
pub const BYTES_MAX: usize = 1024 * 1024;
/// Pieces of one line that differ in style or link; the rest is shown plain.
const PIECES_MAX: usize = 1_000;
/// Links of one line; further ones are text.
const LINKS_MAX: usize = 100;
/// Bytes given to the parser at once. At each invalid byte it looks through all that it was given
/// for the next escape, so what it is given is short.
const PARSED_AT_ONCE: usize = 512;

const BOLD: u8 = 1;
const DIM: u8 = 2;
const ITALIC: u8 = 4;
const UNDERLINE: u8 = 8;
const REVERSE: u8 = 16;
const STRIKE: u8 = 32;
/// The cell was erased, or never written.
const ERASED: u8 = 128;

/// How a cell looks. A colour is 0 for the default, else one more than its number among the 256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Style {
    fore: u16,
    back: u16,
    flags: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    char: char,
    style: Style,
    /// 0 for none, else one more than its place among the line's links.
    link: u16,
}

const BLANK: Cell = Cell { char: ' ', style: Style { fore: 0, back: 0, flags: ERASED }, link: 0 };

/// Appends a line, without its line feed, as HTML. Answers whether some of it was left out.
pub fn html(line: &[u8], out: &mut String) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() <= COLUMNS_MAX && is_plain(line) && memchr::memmem::find(line, b"://").is_none() {
        // All ASCII: most lines, in one pass.
        line.iter().for_each(|byte| escape(char::from(*byte), out));
        return false;
    }
    let mut screen = Screen::of(line);
    screen.link_bare_urls();
    screen.write(out);
    screen.cut
}

/// What a line shows, as text: for searching and marking. Invisible characters stay what they are.
#[must_use]
pub fn text(line: &[u8]) -> Cow<'_, str> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() <= COLUMNS_MAX && !line.iter().any(|byte| *byte < 0x20 && *byte != b'\t') {
        return String::from_utf8_lossy(line);
    }
    let screen = Screen::of(line);
    Cow::Owned(screen.shown().iter().map(|cell| cell.char).collect())
}

/// Whether it is printable ASCII and tabs, which stand for themselves.
fn is_plain(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e))
}

/// Appends a character so that it is only that.
pub fn escape(char: char, out: &mut String) {
    match char {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        '"' => out.push_str("&quot;"),
        '\'' => out.push_str("&#39;"),
        _ => out.push(char),
    }
}

/// The virtual line.
#[derive(Default)]
struct Screen {
    cells: Vec<Cell>,
    /// Where the next character goes; beyond the width it counts on, so that backspaces find back.
    column: usize,
    /// Cells before this one are known to be blank, so erasing them again costs nothing.
    blank_until: usize,
    style: Style,
    link: u16,
    links: Vec<String>,
    cut: bool,
}

impl Screen {
    fn of(line: &[u8]) -> Self {
        let mut screen = Self { cut: line.len() > BYTES_MAX, ..Self::default() };
        let looked_at = &line[..line.len().min(BYTES_MAX)];
        // Made valid first: what follows an invalid byte is then a matter of the standard, and no
        // byte of a broken character is a control.
        let text = String::from_utf8_lossy(looked_at);
        let mut parser: Parser = Parser::new();
        for piece in text.as_bytes().chunks(PARSED_AT_ONCE) {
            parser.advance(&mut screen, piece);
        }
        screen
    }

    fn put(&mut self, char: char) {
        let cell = Cell { char, style: self.style, link: self.link };
        if self.column >= COLUMNS_MAX {
            self.cut = true;
        } else if self.column < self.cells.len() {
            self.cells[self.column] = cell;
        } else {
            self.cells.push(cell);
        }
        self.blank_until = self.blank_until.min(self.column);
        self.column += 1;
    }

    fn erase_right(&mut self) {
        self.cells.truncate(self.column);
        self.blank_until = self.blank_until.min(self.cells.len());
    }

    fn erase_left(&mut self) {
        let end = self.cells.len().min(self.column + 1);
        if self.blank_until < end {
            self.cells[self.blank_until..end].fill(BLANK);
            self.blank_until = end;
        }
    }

    /// The cells without the blank ones at the end.
    fn shown(&self) -> &[Cell] {
        let blank = self.cells.iter().rev().take_while(|cell| cell.style.flags & ERASED != 0).count();
        &self.cells[..self.cells.len() - blank]
    }

    fn link_to(&mut self, url: String) -> u16 {
        if self.links.len() >= LINKS_MAX {
            return 0;
        }
        self.links.push(url);
        u16::try_from(self.links.len()).unwrap_or(0)
    }

    fn link_bare_urls(&mut self) {
        let mut at = 0;
        while let Some(found) = links::next_bare(self.cells.len(), at, |column| {
            let cell = self.cells[column];
            if cell.link == 0 { cell.char } else { ' ' }
        }) {
            at = found.end;
            let url: String = self.cells[found.clone()].iter().map(|cell| cell.char).collect();
            let link = self.link_to(url);
            self.cells[found].iter_mut().for_each(|cell| cell.link = link);
        }
    }

    fn write(&self, out: &mut String) {
        let mut pieces = 0;
        let mut open = (Style::default(), 0);
        let mut before = ' ';
        for cell in self.shown() {
            let looks = Style { flags: cell.style.flags & !ERASED, ..cell.style };
            let mut wanted = (looks, cell.link);
            if wanted != open {
                pieces += 1;
                if pieces > PIECES_MAX {
                    wanted = (Style::default(), 0);
                }
            }
            if wanted != open {
                self.turn(open, wanted, out);
                open = wanted;
            }
            write_char(cell.char, before, out);
            before = cell.char;
        }
        self.turn(open, (Style::default(), 0), out);
    }

    /// Closes what is open and opens what is wanted; a link stays open over changes of style.
    fn turn(&self, open: (Style, u16), wanted: (Style, u16), out: &mut String) {
        if open.0 != Style::default() {
            out.push_str("</span>");
        }
        if open.1 != wanted.1 {
            if open.1 != 0 {
                out.push_str("</a>");
            }
            if let Some(url) = wanted.1.checked_sub(1).and_then(|at| self.links.get(usize::from(at))) {
                out.push_str("<a href=\"");
                url.chars().for_each(|char| escape(char, out));
                out.push_str("\" rel=\"noopener noreferrer nofollow\" target=\"_blank\">");
            }
        }
        if wanted.0 != Style::default() {
            write_style(wanted.0, out);
        }
    }
}

/// Opens a `span` with the classes of a style; the style sheet is made in `palette`.
fn write_style(style: Style, out: &mut String) {
    let (mut fore, mut back) = (style.fore, style.back);
    let reversed = style.flags & REVERSE != 0;
    out.push_str("<span class=\"");
    if reversed {
        (fore, back) = (back, fore);
        // Without colours of its own a reversed piece has those of the page, the other way round.
        out.push_str(if back == 0 { "r " } else { "" });
    }
    if back != 0 {
        let _ = write!(out, "b{} ", back - 1);
    }
    if fore != 0 {
        // On a ground of its own a colour is what it is; on the page's it is made readable.
        let _ = write!(out, "{}{} ", if back == 0 && !reversed { 'f' } else { 'g' }, fore - 1);
    }
    for (flag, class) in [(BOLD, "x "), (DIM, "d "), (ITALIC, "o "), (UNDERLINE, "u "), (STRIKE, "s ")] {
        out.push_str(if style.flags & flag == 0 { "" } else { class });
    }
    out.truncate(out.trim_end_matches(' ').len());
    out.push_str("\">");
}

/// Appends a character; one that nobody would see by its name or number.
fn write_char(char: char, before: char, out: &mut String) {
    match picture(char, before) {
        None => escape(char, out),
        Some(picture) => {
            let _ = write!(out, "<i class=\"c\">{picture}</i>");
        }
    }
}

/// The controls of ASCII, by their names.
const CONTROLS: [&str; 32] = [
    "NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "BEL", "BS", "HT", "LF", "VT", "FF", "CR", "SO", "SI", "DLE",
    "DC1", "DC2", "DC3", "DC4", "NAK", "SYN", "ETB", "CAN", "EM", "SUB", "ESC", "FS", "GS", "RS", "US",
];

/// What is shown in place of a character that shows nothing or moves others; `before` is the one
/// before it: within an emoji some of these are part of its spelling.
#[must_use]
pub fn picture(char: char, before: char) -> Option<String> {
    let code = u32::from(char);
    match char {
        '\t' => None,
        '\0'..='\u{1f}' => CONTROLS.get(usize::try_from(code).unwrap_or(0)).map(|name| (*name).to_owned()),
        '\u{7f}' => Some("DEL".to_owned()),
        '\u{200d}' | '\u{fe00}'..='\u{fe0f}' if is_pictorial(before) => None,
        _ if is_unseen(char) => Some(format!("U+{code:04X}")),
        _ => None,
    }
}

fn is_pictorial(char: char) -> bool {
    matches!(char, '\u{2190}'..='\u{2bff}' | '\u{fe0f}' | '\u{1f000}'..='\u{1faff}')
}

/// Controls beyond ASCII, directions, joiners, fillers and tags.
fn is_unseen(char: char) -> bool {
    matches!(
        char,
        '\u{80}'..='\u{9f}'
            | '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

impl Perform for Screen {
    fn print(&mut self, char: char) {
        self.put(char);
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\r' => self.column = 0,
            0x08 => self.column = self.column.saturating_sub(1),
            _ => self.put(char::from(byte)),
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        if ignore || !intermediates.is_empty() {
            return;
        }
        let first = params.iter().next().and_then(|param| param.first()).copied().unwrap_or(0);
        match (action, first) {
            ('m', _) => self.style.select(params),
            ('K', 0) => self.erase_right(),
            ('K', 1) => self.erase_left(),
            ('K', 2) => {
                self.erase_right();
                self.erase_left();
            }
            // To the first column, as programs do that write their progress over and over.
            ('G', 0 | 1) => self.column = 0,
            _ => {}
        }
    }

    fn osc_dispatch(&mut self, params: &[&[u8]], _: bool) {
        let [b"8", _, url @ ..] = params else { return };
        // The parser splits at every `;`, of which a URL may have its own.
        let url = url.join(&b';');
        self.link = links::allowed(&url).map_or(0, |url| self.link_to(url.to_owned()));
    }
}

impl Style {
    /// Takes over what an SGR sequence says; what it does not know it leaves alone.
    fn select(&mut self, params: &Params) {
        let mut params = params.iter();
        while let Some(param) = params.next() {
            match param {
                [] | [0] => *self = Self::default(),
                [1] => self.flags |= BOLD,
                [2] => self.flags |= DIM,
                [3] => self.flags |= ITALIC,
                [4] => self.flags |= UNDERLINE,
                // Curly and its likes; 4:0 is none.
                [4, kind] => self.set(UNDERLINE, *kind != 0),
                [7] => self.flags |= REVERSE,
                [9] => self.flags |= STRIKE,
                [21] => self.flags |= UNDERLINE,
                [22] => self.flags &= !(BOLD | DIM),
                [23] => self.flags &= !ITALIC,
                [24] => self.flags &= !UNDERLINE,
                [27] => self.flags &= !REVERSE,
                [29] => self.flags &= !STRIKE,
                [code @ 30..=37] => self.fore = code - 29,
                [39] => self.fore = 0,
                [code @ 40..=47] => self.back = code - 39,
                [49] => self.back = 0,
                [code @ 90..=97] => self.fore = code - 81,
                [code @ 100..=107] => self.back = code - 91,
                [which @ (38 | 48), rest @ ..] => {
                    let colour = if rest.is_empty() { colour_of(&mut params) } else { colour_within(rest) };
                    match (colour, which) {
                        (Some(colour), 38) => self.fore = colour,
                        (Some(colour), _) => self.back = colour,
                        (None, _) => {}
                    }
                }
                _ => {}
            }
        }
    }

    const fn set(&mut self, flag: u8, on: bool) {
        self.flags = if on { self.flags | flag } else { self.flags & !flag };
    }
}

/// `38;5;N` and `38;2;R;G;B`, after the 38.
fn colour_of<'a>(params: &mut impl Iterator<Item = &'a [u16]>) -> Option<u16> {
    let mut next = || params.next().and_then(|param| param.first()).copied();
    match next()? {
        5 => indexed(next()?),
        2 => nearest(next()?, next()?, next()?),
        _ => None,
    }
}

/// `38:5:N`, `38:2:R:G:B` and `38:2:SPACE:R:G:B`, after the 38.
fn colour_within(rest: &[u16]) -> Option<u16> {
    match rest {
        [5, number, ..] => indexed(*number),
        [2, red, green, blue] | [2, _, red, green, blue, ..] => nearest(*red, *green, *blue),
        _ => None,
    }
}

fn indexed(number: u16) -> Option<u16> {
    (number < 256).then(|| number + 1)
}

/// The nearest of the 240 that have one meaning everywhere: the cube and the greys.
fn nearest(red: u16, green: u16, blue: u16) -> Option<u16> {
    const STEPS: [u16; 6] = [0, 95, 135, 175, 215, 255];
    if red > 255 || green > 255 || blue > 255 {
        return None;
    }
    let distance = |a: [u16; 3]| -> u32 {
        let of = |x: u16, y: u16| u32::from(x.abs_diff(y)).pow(2);
        of(a[0], red) + of(a[1], green) + of(a[2], blue)
    };
    let step = |value: u16| (0..6_u16).min_by_key(|at| STEPS[usize::from(*at)].abs_diff(value)).unwrap_or(0);
    let [r, g, b] = [step(red), step(green), step(blue)];
    let cube = [r, g, b].map(|at| STEPS[usize::from(at)]);
    let grey = ((red + green + blue) / 3).saturating_sub(3) / 10;
    let grey = grey.min(23);
    let number = if distance([8 + 10 * grey; 3]) < distance(cube) { 232 + grey } else { 16 + 36 * r + 6 * g + b };
    Some(number + 1)
}

#[cfg(test)]
mod tests;
