//! Structured fields (RFC 8941): the part that signatures need. Dictionaries of items and inner lists; strings, tokens, integers, booleans
//! and byte sequences.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The longest header taken, in bytes; ours have some 400.
pub(super) const FIELD_BYTES_MAX: usize = 8_192;

/// A bare item.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Bare {
    Integer(i64),
    Text(String),
    Token(String),
    Boolean(bool),
    Bytes(Vec<u8>),
}

/// Parameters, in order.
pub(super) type Parameters = Vec<(String, Bare)>;

/// A member of a dictionary.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Member {
    Item(Bare, Parameters),
    List(Vec<(Bare, Parameters)>, Parameters),
}

/// Parses a dictionary. A key that comes twice is refused: RFC 8941 would let the later one win, and a signature must not be ambiguous.
pub(super) fn dictionary(text: &str) -> Result<Vec<(String, Member)>, String> {
    if text.len() > FIELD_BYTES_MAX {
        return Err(format!("{} bytes are more than the limit of {FIELD_BYTES_MAX}", text.len()));
    }
    let mut c = Cursor { bytes: text.as_bytes(), at: 0 };
    let mut members: Vec<(String, Member)> = Vec::new();
    c.skip(b" \t");
    while !c.is_at_end() {
        let key = c.key()?;
        let member = if c.eat(b'=') { c.member()? } else { Member::Item(Bare::Boolean(true), c.parameters()?) };
        if members.iter().any(|(k, _)| *k == key) {
            return Err(format!("`{key}` comes twice"));
        }
        members.push((key, member));
        c.skip(b" \t");
        if c.is_at_end() {
            break;
        }
        c.expect(b',')?;
        c.skip(b" \t");
        if c.is_at_end() {
            return Err("it ends with a comma".into());
        }
    }
    Ok(members)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), String> {
        if self.eat(byte) { Ok(()) } else { Err(format!("expected `{}` at byte {}", char::from(byte), self.at)) }
    }

    fn skip(&mut self, set: &[u8]) {
        self.take_while(|b| set.contains(&b));
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> String {
        let start = self.at;
        while self.peek().is_some_and(&wanted) {
            self.at += 1;
        }
        String::from_utf8_lossy(&self.bytes[start..self.at]).into_owned()
    }

    fn key(&mut self) -> Result<String, String> {
        if !self.peek().is_some_and(|b| b.is_ascii_lowercase() || b == b'*') {
            return Err(format!("expected a lower-case key at byte {}", self.at));
        }
        Ok(self.take_while(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b)))
    }

    fn member(&mut self) -> Result<Member, String> {
        if !self.eat(b'(') {
            let item = self.bare()?;
            return Ok(Member::Item(item, self.parameters()?));
        }
        let mut items = Vec::new();
        loop {
            self.skip(b" ");
            if self.eat(b')') {
                return Ok(Member::List(items, self.parameters()?));
            }
            let item = self.bare()?;
            items.push((item, self.parameters()?));
            if !matches!(self.peek(), Some(b' ' | b')')) {
                return Err(format!("expected a blank or `)` at byte {}", self.at));
            }
        }
    }

    fn parameters(&mut self) -> Result<Parameters, String> {
        let mut parameters: Parameters = Vec::new();
        while self.eat(b';') {
            self.skip(b" ");
            let key = self.key()?;
            let value = if self.eat(b'=') { self.bare()? } else { Bare::Boolean(true) };
            if parameters.iter().any(|(k, _)| *k == key) {
                return Err(format!("parameter `{key}` comes twice"));
            }
            parameters.push((key, value));
        }
        Ok(parameters)
    }

    fn bare(&mut self) -> Result<Bare, String> {
        match self.peek() {
            Some(b'"') => self.text(),
            Some(b':') => {
                self.at += 1;
                let body = self.take_while(|b| b != b':');
                self.expect(b':')?;
                STANDARD.decode(&body).map(Bare::Bytes).map_err(|e| format!("a byte sequence is not base64: {e}"))
            }
            Some(b'?') => {
                self.at += 1;
                match self.take_while(|b| b.is_ascii_digit()).as_str() {
                    "0" => Ok(Bare::Boolean(false)),
                    "1" => Ok(Bare::Boolean(true)),
                    other => Err(format!("`?{other}` is not a boolean")),
                }
            }
            Some(b) if b == b'-' || b.is_ascii_digit() => {
                let text = self.take_while(|b| b == b'-' || b == b'.' || b.is_ascii_digit());
                // RFC 8941: at most 15 digits.
                let digits = text.strip_prefix('-').unwrap_or(&text);
                let is_integer = (1..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
                text.parse().ok().filter(|_| is_integer).map(Bare::Integer).ok_or_else(|| format!("`{text}` is not an integer"))
            }
            Some(b) if b.is_ascii_alphabetic() || b == b'*' => {
                Ok(Bare::Token(self.take_while(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b))))
            }
            _ => Err(format!("expected a value at byte {}", self.at)),
        }
    }

    fn text(&mut self) -> Result<Bare, String> {
        self.expect(b'"')?;
        let mut text = String::new();
        loop {
            let Some(b) = self.peek() else { return Err("a string does not end".into()) };
            self.at += 1;
            match b {
                b'"' => return Ok(Bare::Text(text)),
                b'\\' if matches!(self.peek(), Some(b'"' | b'\\')) => {
                    text.extend(self.peek().map(char::from));
                    self.at += 1;
                }
                b'\\' => return Err("a string has a stray backslash".into()),
                0x20..=0x7e => text.push(char::from(b)),
                _ => return Err("a string has a character outside of printable ASCII".into()),
            }
        }
    }
}

/// Writes an item with its parameters.
pub(super) fn item_text(item: &Bare, parameters: &Parameters) -> String {
    let mut out = bare_text(item);
    out.push_str(&parameters_text(parameters));
    out
}

/// Writes an inner list with its parameters.
pub(super) fn list_text(items: &[(Bare, Parameters)], parameters: &Parameters) -> String {
    let items = items.iter().map(|(i, p)| item_text(i, p)).collect::<Vec<_>>().join(" ");
    format!("({items}){}", parameters_text(parameters))
}

fn parameters_text(parameters: &Parameters) -> String {
    let mut out = String::new();
    for (key, value) in parameters {
        let _ = match value {
            Bare::Boolean(true) => write!(out, ";{key}"),
            value => write!(out, ";{key}={}", bare_text(value)),
        };
    }
    out
}

fn bare_text(item: &Bare) -> String {
    match item {
        Bare::Integer(n) => n.to_string(),
        Bare::Text(s) => format!("\"{}\"", s.replace('\\', "\\\\").replace('"', "\\\"")),
        Bare::Token(s) => s.clone(),
        Bare::Boolean(b) => format!("?{}", u8::from(*b)),
        Bare::Bytes(bytes) => format!(":{}:", STANDARD.encode(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(members: &[(String, Member)]) -> String {
        let one = |(key, member): &(String, Member)| match member {
            Member::Item(Bare::Boolean(true), p) => format!("{key}{}", parameters_text(p)),
            Member::Item(item, p) => format!("{key}={}", item_text(item, p)),
            Member::List(items, p) => format!("{key}={}", list_text(items, p)),
        };
        members.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn dictionaries_follow_rfc_8941() {
        for good in [
            r#"sig1=("@method" "date";req "a";key="x y");created=1618884473;keyid="k\"\\";flag"#,
            "a=1, b=tok/en:1, c=:AQID:, d, e=?0",
            "a=();x=-5",
            "",
        ] {
            assert_eq!(written(&dictionary(good).unwrap()), good);
        }
        assert_eq!(written(&dictionary("  a=1 ,\tb=( \"x\"  \"y\" ); q=1  ").unwrap()), "a=1, b=(\"x\" \"y\");q=1");
        for (bad, want) in [
            ("a=1,", "ends with a comma"),
            ("a=1 b=2", "expected `,`"),
            ("A=1", "lower-case key"),
            ("a=1, a=2", "`a` comes twice"),
            ("a=1;b;b", "parameter `b` comes twice"),
            ("a=\"x", "does not end"),
            ("a=\"\\x\"", "stray backslash"),
            ("a=\"ü\"", "printable ASCII"),
            ("a=:!:", "not base64"),
            ("a=:AQID", "expected `:`"),
            ("a=(\"x\"\"y\")", "expected a blank"),
            ("a=(\"x\"", "expected a blank"),
            ("a=1.5", "not an integer"),
            ("a=1234567890123456", "not an integer"),
            ("a=?2", "not a boolean"),
            ("a=", "expected a value"),
        ] {
            let error = dictionary(bad).unwrap_err();
            assert!(error.contains(want), "{bad}: {error}");
        }
        assert!(dictionary(&"a".repeat(FIELD_BYTES_MAX + 1)).unwrap_err().contains("more than the limit"));
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer_not_a_panic(text in prop_oneof!["\\PC{0,60}", r#"[a-c=();:"?\\ ,0-9-]{0,40}"#]) {
            if let Ok(members) = dictionary(&text) {
                prop_assert_eq!(dictionary(&written(&members)), Ok(members));
            }
        }
    }
}
