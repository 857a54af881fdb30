//! Characters that are written by their names: `&amp;`, `&#8211;`, `&#x1F30D;`.
//!
//! The names are those of HTML 4 and what is found on pages besides; a name that nobody knows stays what it is.
//!
//! <https://html.spec.whatwg.org/multipage/parsing.html#character-reference-state>

use std::borrow::Cow;

use encoding_rs::WINDOWS_1252;

/// Longer than any name below.
const LONGEST: usize = 12;

/// From U+00A0 on, in their order. These may stand without their semicolon.
const LATIN_1: &str = "nbsp iexcl cent pound curren yen brvbar sect uml copy ordf laquo not shy reg macr deg plusmn sup2 \
    sup3 acute micro para middot cedil sup1 ordm raquo frac14 frac12 frac34 iquest Agrave Aacute Acirc Atilde Auml Aring \
    AElig Ccedil Egrave Eacute Ecirc Euml Igrave Iacute Icirc Iuml ETH Ntilde Ograve Oacute Ocirc Otilde Ouml times Oslash \
    Ugrave Uacute Ucirc Uuml Yacute THORN szlig agrave aacute acirc atilde auml aring aelig ccedil egrave eacute ecirc euml \
    igrave iacute icirc iuml eth ntilde ograve oacute ocirc otilde ouml divide oslash ugrave uacute ucirc uuml yacute thorn \
    yuml";

/// A name, and what it names.
const OTHERS: &str = "apos ' quot \" QUOT \" lt < LT < gt > GT > AMP & num # percnt % lpar ( rpar ) comma , period . \
    colon : semi ; excl ! quest ? lbrack [ rbrack ] lsqb [ rsqb ] lcub { rcub } lbrace { rbrace } vert | sol / bsol \\ \
    commat @ equals = plus + ast * dollar $ lowbar _ grave ` hyphen ‐ dash ‐ \
    OElig Œ oelig œ Scaron Š scaron š Yuml Ÿ fnof ƒ circ ˆ tilde ˜ COPY © REG ® \
    Alpha Α Beta Β Gamma Γ Delta Δ Epsilon Ε Zeta Ζ Eta Η Theta Θ Iota Ι Kappa Κ Lambda Λ Mu Μ Nu Ν Xi Ξ Omicron Ο Pi Π \
    Rho Ρ Sigma Σ Tau Τ Upsilon Υ Phi Φ Chi Χ Psi Ψ Omega Ω alpha α beta β gamma γ delta δ epsilon ε zeta ζ eta η theta θ \
    iota ι kappa κ lambda λ mu μ nu ν xi ξ omicron ο pi π rho ρ sigmaf ς sigma σ tau τ upsilon υ phi φ chi χ psi ψ omega ω \
    ndash – mdash — horbar ― lsquo ‘ rsquo ’ sbquo ‚ ldquo “ rdquo ” bdquo „ dagger † Dagger ‡ bull • hellip … permil ‰ \
    prime ′ Prime ″ lsaquo ‹ rsaquo › oline ‾ frasl ⁄ euro € image ℑ weierp ℘ real ℜ trade ™ TRADE ™ alefsym ℵ numero № \
    larr ← uarr ↑ rarr → darr ↓ harr ↔ crarr ↵ lArr ⇐ uArr ⇑ rArr ⇒ dArr ⇓ hArr ⇔ forall ∀ part ∂ exist ∃ empty ∅ nabla ∇ \
    isin ∈ notin ∉ ni ∋ prod ∏ sum ∑ minus − lowast ∗ radic √ prop ∝ infin ∞ ang ∠ and ∧ or ∨ cap ∩ cup ∪ int ∫ there4 ∴ \
    sim ∼ cong ≅ asymp ≈ ne ≠ equiv ≡ le ≤ ge ≥ sub ⊂ sup ⊃ nsub ⊄ sube ⊆ supe ⊇ oplus ⊕ otimes ⊗ perp ⊥ sdot ⋅ lceil ⌈ \
    rceil ⌉ lfloor ⌊ rfloor ⌋ loz ◊ spades ♠ clubs ♣ hearts ♥ diams ♦ star ☆ starf ★ check ✓ cross ✗ phone ☎ \
    Abreve Ă abreve ă Aogon Ą aogon ą Cacute Ć cacute ć Ccaron Č ccaron č Dcaron Ď dcaron ď Dstrok Đ dstrok đ Ecaron Ě \
    ecaron ě Eogon Ę eogon ę Gbreve Ğ gbreve ğ Idot İ inodot ı imath ı Lstrok Ł lstrok ł Nacute Ń nacute ń Ncaron Ň \
    ncaron ň Odblac Ő odblac ő Rcaron Ř rcaron ř Sacute Ś sacute ś Scedil Ş scedil ş Tcaron Ť tcaron ť Udblac Ű udblac ű \
    Uring Ů uring ů Zacute Ź zacute ź Zcaron Ž zcaron ž Zdot Ż zdot ż";

/// A text with its references read, once.
pub(super) fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        rest = match reference(after) {
            Some((c, length)) => {
                out.push(c);
                &after[length..]
            }
            None => {
                out.push('&');
                after
            }
        };
    }
    out.push_str(rest);
    out.into()
}

/// What a text begins with whose `&` was taken off, and how long that is.
fn reference(text: &str) -> Option<(char, usize)> {
    match text.strip_prefix('#') {
        Some(number) => numeric(number).map(|(c, length)| (c, length + 1)),
        None => named(text),
    }
}

fn numeric(text: &str) -> Option<(char, usize)> {
    let (from, radix) = if text.starts_with(['x', 'X']) { (1, 16) } else { (0, 10) };
    let digits = text[from..].chars().take_while(|c| c.is_digit(radix)).count();
    if digits == 0 {
        return None;
    }
    let end = from + digits;
    let number = u32::from_str_radix(&text[from..end], radix).unwrap_or(u32::MAX);
    Some((scalar(number), end + usize::from(text[end..].starts_with(';'))))
}

/// Numbers from 128 to 159 are what Windows had there; what is no character is the sign for that.
fn scalar(number: u32) -> char {
    let windows = u8::try_from(number).ok().filter(|byte| (0x80..0xa0).contains(byte));
    let c = match windows {
        Some(byte) => WINDOWS_1252.decode_without_bom_handling(&[byte]).0.chars().next(),
        None => char::from_u32(number).filter(|c| *c != '\0'),
    };
    c.unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn named(text: &str) -> Option<(char, usize)> {
    let length = text.bytes().take(LONGEST).take_while(u8::is_ascii_alphanumeric).count();
    let (name, after) = text.split_at(length);
    if after.starts_with(';') {
        return character(name).map(|c| (c, length + 1));
    }
    // An address such as `?a=1&reg=2` has no references in it.
    let may_stand_alone = !after.starts_with('=') && !name.is_empty();
    bare(name).filter(|_| may_stand_alone).map(|c| (c, length))
}

fn character(name: &str) -> Option<char> {
    let mut others = OTHERS.split_whitespace();
    match name {
        "ensp" | "emsp" | "thinsp" | "hairsp" | "numsp" | "puncsp" | "Tab" | "NewLine" => Some(' '),
        "zwj" => Some('\u{200d}'),
        "zwnj" => Some('\u{200c}'),
        _ => bare(name).or_else(|| {
            while let (Some(known), Some(c)) = (others.next(), others.next()) {
                if known == name {
                    return c.chars().next();
                }
            }
            None
        }),
    }
}

fn bare(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        _ => {
            let place = LATIN_1.split_whitespace().position(|known| known == name)?;
            char::from_u32(0xa0 + u32::try_from(place).ok()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_read_by_name_and_number() {
        for (written, read) in [
            ("a &amp; b &lt;c&gt; &quot;d&quot; &apos;e&apos;", "a & b <c> \"d\" 'e'"),
            ("&nbsp;&eacute;&yuml;&AElig;&Ouml;&szlig;", "\u{a0}éÿÆÖß"),
            ("&ndash;&mdash;&hellip;&euro;&trade;&bull;&alpha;&Lstrok;&check;", "–—…€™•αŁ✓"),
            ("&#65;&#x42;&#X43;&#8211;&#x1F30D;", "ABC–🌍"),
            ("&#65 &#66x", "A Bx"),
            ("&#150;&#x80;", "–€"),
            ("&#0;&#xd800;&#x110000;&#99999999999999999999;", "����"),
            ("&amp;amp;", "&amp;"),
            ("AT&T &unknown; &; & &# &#x; &#;", "AT&T &unknown; &; & &# &#x; &#;"),
            ("&copy 2020 &ampx", "© 2020 &ampx"),
            ("?a=1&copy=2&reg=3&lang=4", "?a=1&copy=2&reg=3&lang=4"),
            ("日&amp本&", "日&本&"),
            ("&amp", "&"),
        ] {
            assert_eq!(decoded(written), read, "{written}");
        }
    }

    #[test]
    fn every_name_is_short_and_names_one_character() {
        assert_eq!(LATIN_1.split_whitespace().count(), 96);
        let others: Vec<&str> = OTHERS.split_whitespace().collect();
        assert_eq!(others.len() % 2, 0);
        for pair in others.chunks(2) {
            assert!(pair[0].len() < LONGEST && pair[0].bytes().all(|b| b.is_ascii_alphanumeric()), "{pair:?}");
            assert_eq!(pair[1].chars().count(), 1, "{pair:?}");
            assert_eq!(decoded(&format!("&{};", pair[0])), pair[1]);
        }
    }
}
