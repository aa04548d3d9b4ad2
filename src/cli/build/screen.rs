//! What of a log a terminal gets: text, line ends and colours.
//!
//! A log is whatever a build printed, and a build runs what strangers wrote: nothing of it may move the
//! cursor, set the title, answer questions or write the clipboard.

use vte::{Params, Parser, Perform};

/// Lets through what only shows. Keeps its place over the borders of what it is given.
#[derive(Default)]
pub(super) struct ForTerminal {
    parser: Parser,
    shown: Shown,
}

#[derive(Default)]
struct Shown(Vec<u8>);

impl ForTerminal {
    /// The next bytes, as they may be shown.
    pub(super) fn show(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.parser.advance(&mut self.shown, bytes);
        std::mem::take(&mut self.shown.0)
    }
}

impl Perform for Shown {
    fn print(&mut self, c: char) {
        let hidden = matches!(c, '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let c = if hidden { char::REPLACEMENT_CHARACTER } else { c };
        self.0.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn execute(&mut self, byte: u8) {
        if matches!(byte, b'\n' | b'\r' | b'\t') {
            self.0.push(byte);
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        if ignore || !intermediates.is_empty() {
            return;
        }
        match action {
            // Colours, and the rest of the line cleared: what progress bars need beside a carriage return.
            'm' | 'K' => {
                let numbers = params.iter().map(|parts| parts.iter().map(u16::to_string).collect::<Vec<_>>().join(":"));
                let text = format!("\x1b[{}{action}", numbers.collect::<Vec<_>>().join(";"));
                self.0.extend_from_slice(text.as_bytes());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ForTerminal;

    #[test]
    fn a_log_colours_and_does_not_steer() {
        for (hostile, shown) in [
            ("plain\r\n\tünïcode 手\n", "plain\r\n\tünïcode 手\n"),
            ("\x1b[1;31mred\x1b[0m \x1b[38:5:9mx\x1b[m", "\x1b[1;31mred\x1b[0m \x1b[38:5:9mx\x1b[0m"),
            ("50%\r\x1b[K100%\n", "50%\r\x1b[0K100%\n"),
            ("\x1b]0;title\x07a\x1b]52;c;aGk=\x07b", "ab"),
            ("\x1b[2J\x1b[H\x1b[6n\x1b[?1049hc\x07\x08", "c"),
            ("gnp\u{202e}.exe", "gnp\u{fffd}.exe"),
        ] {
            let whole = ForTerminal::default().show(hostile.as_bytes());
            assert_eq!(String::from_utf8_lossy(&whole), shown, "{hostile:?}");
            let mut piecemeal = ForTerminal::default();
            let pieces: Vec<u8> = hostile.as_bytes().chunks(1).flat_map(|piece| piecemeal.show(piece)).collect();
            assert_eq!(String::from_utf8_lossy(&pieces), shown, "{hostile:?} in pieces");
        }
    }
}
