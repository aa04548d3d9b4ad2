//! Tables of lines and the HTML they give.

use super::{BYTES_MAX, COLUMNS_MAX, html, text};

fn shown(line: &[u8]) -> String {
    let mut out = String::new();
    html(line, &mut out);
    out
}

#[test]
fn lines_look_as_in_a_terminal() {
    let table: &[(&[u8], &str)] = &[
        (b"plain", "plain"),
        (b"", ""),
        (b"windows\r", "windows"),
        (b"a\tb", "a\tb"),
        // Styles.
        (b"\x1b[31mred\x1b[0m no", "<span class=\"f1\">red</span> no"),
        (b"\x1b[1;92mok", "<span class=\"f10 x\">ok</span>"),
        (b"\x1b[1;31mx\x1b[22my", "<span class=\"f1 x\">x</span><span class=\"f1\">y</span>"),
        (b"\x1b[38;5;208mx\x1b[39my", "<span class=\"f208\">x</span>y"),
        (b"\x1b[38;5;300mx", "x"),
        (b"\x1b[38;5;99999mx\x1b[38;2;99999;1;1mx", "xx"),
        (b"\x1b[38;2;255;0;0mx", "<span class=\"f196\">x</span>"),
        (b"\x1b[38:2::128:128:128mx", "<span class=\"f244\">x</span>"),
        (b"\x1b[38;2;1;2mx", "x"),
        (b"\x1b[38mx", "x"),
        (b"\x1b[41;37mx", "<span class=\"b1 g7\">x</span>"),
        (b"\x1b[7mx", "<span class=\"r\">x</span>"),
        (b"\x1b[7;31mx", "<span class=\"b1\">x</span>"),
        (b"\x1b[7;44mx", "<span class=\"r g4\">x</span>"),
        (b"\x1b[2;3;4;9mx\x1b[mx", "<span class=\"d o u s\">x</span>x"),
        (b"\x1b[4:3mx\x1b[4:0my", "<span class=\"u\">x</span>y"),
        (b"\x1b[999mx", "x"),
        // Moving and erasing.
        (b"10%\r20%\r100%", "100%"),
        (b"abcdef\rXY", "XYcdef"),
        (b"abcdef\rXY\x1b[K", "XY"),
        (b"abc\x08\x08X", "aXc"),
        (b"\x08\x08a", "a"),
        (b"abc\x1b[2Kd", "   d"),
        (b"abc\x1b[1Kd", "   d"),
        (b"abcdef\r\x1b[1KX", "Xbcdef"),
        (b"abc\x1b[2K\rx", "x"),
        (b"abc\x1b[1Gx", "xbc"),
        // What is dropped.
        (b"\x1b[2J\x1b[10;10Hx\x1b[?25l\x1b[>4;2my", "xy"),
        (b"\x1b]0;title\x07x", "x"),
        (b"\x1bP1$r\x1b\\x", "x"),
        (b"\x1b(Bx\x1b=y", "xy"),
        // What would do something is text.
        (b"<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        (b"\"'&amp;", "&quot;&#39;&amp;amp;"),
        (b"\x1b[31m<b>", "<span class=\"f1\">&lt;b&gt;</span>"),
        // What nobody would see.
        (b"a\0b\x07", "a<i class=\"c\">NUL</i>b<i class=\"c\">BEL</i>"),
        ("a\u{202e}cba".as_bytes(), "a<i class=\"c\">U+202E</i>cba"),
        ("\u{85}\u{ad}".as_bytes(), "<i class=\"c\">U+0085</i><i class=\"c\">U+00AD</i>"),
        ("\u{26a0}\u{fe0f} x\u{fe0f}".as_bytes(), "\u{26a0}\u{fe0f} x<i class=\"c\">U+FE0F</i>"),
        (b"a\xffb\xc3", "a\u{fffd}b\u{fffd}"),
        (b"\xc3\x1b[31mx", "\u{fffd}<span class=\"f1\">x</span>"),
    ];
    for (line, wanted) in table {
        assert_eq!(shown(line), *wanted, "{}", line.escape_ascii());
    }
}

#[test]
fn links_lead_only_where_they_may() {
    let to = |url: &str, text: &str| {
        format!("<a href=\"{url}\" rel=\"noopener noreferrer nofollow\" target=\"_blank\">{text}</a>")
    };
    let osc = |url: &str, text: &str| format!("\x1b]8;;{url}\x1b\\{text}\x1b]8;;\x1b\\");
    let table = [
        (osc("https://a.example/x", "x"), to("https://a.example/x", "x")),
        (osc("https://a.example/x;y?z&w", "x"), to("https://a.example/x;y?z&amp;w", "x")),
        (osc("javascript:alert(1)", "x"), "x".to_owned()),
        (osc("https://a\"onclick=\"b", "x"), "x".to_owned()),
        (osc(&format!("https://a/{}", "b".repeat(2_000)), "x"), "x".to_owned()),
        // A style within a link leaves the link whole.
        (osc("http://a", "b\x1b[1mc"), to("http://a", "b<span class=\"x\">c</span>")),
        ("see http://a.".to_owned(), format!("see {}.", to("http://a", "http://a"))),
        ("http://a?b='c'&d".to_owned(), to("http://a?b=&#39;c&#39;&amp;d", "http://a?b=&#39;c&#39;&amp;d")),
    ];
    for (line, wanted) in table {
        assert_eq!(shown(line.as_bytes()), wanted, "{line:?}");
    }
}

#[test]
fn long_lines_are_cut_and_say_so() {
    let mut out = String::new();
    assert!(!html(&[b'a'; COLUMNS_MAX], &mut out));
    assert_eq!(out.len(), COLUMNS_MAX);
    assert!(html(&[b'a'; COLUMNS_MAX + 1], &mut String::new()));
    // What is written over and over is not long.
    assert!(!html(&b"0123456789\r".repeat(2_000), &mut String::new()));
    assert!(html(&b"0123456789\r".repeat(BYTES_MAX / 10), &mut String::new()));
}

#[test]
fn a_line_of_colours_has_a_bounded_number_of_pieces() {
    let line = (0..9_000).flat_map(|at| format!("\x1b[3{}mx", at % 7).into_bytes()).collect::<Vec<_>>();
    let out = shown(&line);
    assert_eq!(out.matches("<span").count(), super::PIECES_MAX);
    let line = "http://a ".repeat(500);
    assert_eq!(shown(line.as_bytes()).matches("<a ").count(), super::LINKS_MAX);
}

/// Escapes that would cost their square where something is done for each; this ends because nothing is.
#[test]
fn bombs_cost_what_they_weigh() {
    let wide = vec![b'a'; COLUMNS_MAX - 1];
    for piece in
        [&b"\x1b[1K"[..], b"\x1b[2Kx\x08", b"\x1b[2K", b"\xff", b"\x1b[K", b"\x1b", b"\x1b]8;;http://a\x07", b"\x9b"]
    {
        let mut line = wide.clone();
        line.extend(piece.repeat(BYTES_MAX / piece.len()));
        let _ = shown(&line);
        assert!(text(&line).len() <= 3 * COLUMNS_MAX);
    }
}

#[test]
fn the_text_is_what_is_shown() {
    for (line, wanted) in [
        (&b"\x1b[31merror\x1b[0m: x\r"[..], "error: x"),
        (b"10%\r\x1b[Kdone", "done"),
        (b"a<b", "a<b"),
        (b"\xff", "\u{fffd}"),
    ] {
        assert_eq!(text(line), wanted);
    }
}
