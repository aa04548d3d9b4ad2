//! The classes that a log's colours become: a piece of style sheet, made once.
//!
//! A page may have no inline style (its policy forbids it, so that a log cannot bring any), so each of
//! the 256 colours has classes: `f` on the page's own ground, moved in brightness until it can be read
//! there, in the light and in the dark; `b` as a ground, with black or white on it; `g` as it is, on a
//! ground that the log chose too.

use std::fmt::Write as _;

/// Contrast of a colour against the page's ground, at least; what WCAG asks of text.
const CONTRAST_MIN: f64 = 4.5;
/// Where a log's lines stand, in the light and in the dark. The same as in `page.css`.
const LIGHT: Rgb = [0xfb, 0xfb, 0xfa];
const DARK: Rgb = [0x16, 0x18, 0x1b];

/// The first sixteen, calm enough for a page full of them.
const NAMED: [Rgb; 16] = [
    [0x3b, 0x40, 0x48],
    [0xcf, 0x3d, 0x3d],
    [0x3a, 0x94, 0x4b],
    [0xb5, 0x85, 0x1a],
    [0x35, 0x74, 0xd4],
    [0xa6, 0x4f, 0xc2],
    [0x1b, 0x93, 0x9c],
    [0xc3, 0xc8, 0xcf],
    [0x6f, 0x76, 0x80],
    [0xf0, 0x5f, 0x5f],
    [0x5c, 0xc0, 0x6c],
    [0xe0, 0xb2, 0x3f],
    [0x62, 0x9c, 0xf5],
    [0xcb, 0x7f, 0xe4],
    [0x48, 0xc3, 0xcb],
    [0xff, 0xff, 0xff],
];

type Rgb = [u8; 3];

/// The rules.
#[must_use]
pub fn css() -> String {
    let mut light = String::new();
    let mut dark = String::new();
    let mut grounds = String::new();
    let mut own = String::new();
    for number in 0..=255 {
        let colour = rgb(number);
        let _ = writeln!(light, ".f{number}{{color:{}}}", hex(readable(colour, LIGHT)));
        let _ = writeln!(dark, ".f{number}{{color:{}}}", hex(readable(colour, DARK)));
        let over = if contrast(colour, [0; 3]) >= contrast(colour, [255; 3]) { "#000" } else { "#fff" };
        let _ = writeln!(grounds, ".b{number}{{background:{};color:{over}}}", hex(colour));
        let _ = writeln!(own, ".g{number}{{color:{}}}", hex(colour));
    }
    format!("{light}{grounds}{own}@media (prefers-color-scheme:dark){{\n{dark}}}\n")
}

fn rgb(number: u8) -> Rgb {
    let step = |at: u8| if at == 0 { 0 } else { 55 + 40 * at };
    match number {
        0..=15 => NAMED[usize::from(number)],
        16..=231 => {
            let at = number - 16;
            [step(at / 36), step(at / 6 % 6), step(at % 6)]
        }
        232..=255 => [8 + 10 * (number - 232); 3],
    }
}

/// The colour, mixed with black or white by as little as makes it readable on a ground.
fn readable(colour: Rgb, ground: Rgb) -> Rgb {
    let towards = if luminance(ground) > 0.5 { 0 } else { 255 };
    let mixed = |part: u16| {
        colour.map(|value| {
            let value = u16::from(value) * (20 - part) + towards * part;
            u8::try_from(value / 20).unwrap_or(u8::MAX)
        })
    };
    (0..=20).map(mixed).find(|mixed| contrast(*mixed, ground) >= CONTRAST_MIN).unwrap_or(colour)
}

/// How much two colours differ for the eye, 1 to 21.
fn contrast(a: Rgb, b: Rgb) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

fn luminance(colour: Rgb) -> f64 {
    let [red, green, blue] = colour.map(|value| {
        let value = f64::from(value) / 255.0;
        if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    });
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}

fn hex([red, green, blue]: Rgb) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

#[cfg(test)]
mod tests {
    use super::{CONTRAST_MIN, DARK, LIGHT, contrast, css, readable, rgb};

    #[test]
    fn every_colour_can_be_read_in_the_light_and_in_the_dark() {
        for number in 0..=255 {
            for ground in [LIGHT, DARK] {
                assert!(contrast(readable(rgb(number), ground), ground) >= CONTRAST_MIN, "{number} on {ground:?}");
            }
        }
    }

    #[test]
    fn the_classes_are_all_there_and_the_grounds_are_the_pages() {
        let css = css();
        for number in 0..=255 {
            for class in ["f", "b", "g"] {
                assert!(css.contains(&format!(".{class}{number}{{")), "{class}{number}");
            }
        }
        let page = include_str!("assets/page.css");
        for ground in [LIGHT, DARK] {
            assert!(page.contains(&format!("--log: {}", super::hex(ground))), "{ground:?}");
        }
    }
}
