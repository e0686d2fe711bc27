//! The query language `q` (ETSI GS CIM 009 V1.9.1, clause 4.9).

use entity::{CompareOp, Comparison, Filter, Instant, Iri, LinkedCondition, Operand, PATH_MEMBERS, Path, Pattern, Target, TypeSelector};

use crate::context::Context;
use crate::error::{Error, Result, shown};

/// The longest query, in bytes.
pub const Q_BYTES_MAX: usize = 8 * 1024;

/// How deep parentheses may be nested.
pub const Q_DEPTH_MAX: usize = 32;

/// The most values in one list.
pub const LIST_VALUES_MAX: usize = 500;

/// What a query needs to be understood.
#[derive(Debug, Clone, Copy)]
pub struct QOptions<'a> {
    /// Expands the names.
    pub context: &'a Context,
    /// Attributes whose string operands are names too (parameter `expandValues`).
    pub expand_values: &'a [Iri],
    /// How many relationships may be followed one behind the other (`joinLevel`); none without a join.
    pub link_levels: usize,
}

/// A query as a condition, and whether it looks at any attribute (not only at the entity's own times): only then is it narrow enough to
/// stand alone (clause 5.7.2).
#[derive(Debug, Clone, PartialEq)]
pub struct Q {
    /// The condition.
    pub filter: Filter,
    /// It names an attribute.
    pub has_attribute: bool,
}

/// Parses `text`, as it is after percent-decoding.
///
/// `;` is "and" and binds tighter than `|`, "or"; parentheses nest. Errors: [`crate::ErrorKind::BadRequestData`] with the position in characters.
pub fn parse_q(text: &str, options: QOptions<'_>) -> Result<Q> {
    if text.len() > Q_BYTES_MAX {
        return Err(Error::bad(format!("{} bytes are more than the limit of {Q_BYTES_MAX}", text.len())));
    }
    let mut parser = Parser { text, position: 0, depth: 0, has_attribute: false, options };
    let filter = parser.any_of()?;
    match parser.peek() {
        None => Ok(Q { filter, has_attribute: parser.has_attribute }),
        Some(')') => Err(parser.error("there is no `(` for this `)`")),
        Some(_) => Err(parser.error("expected `;`, `|` or the end")),
    }
}

/// What ends a name or a path.
const PATH_ENDS: [char; 15] = ['=', '!', '<', '>', '~', '[', ']', ';', '|', '(', ')', '{', '}', '"', ','];

/// The path to a value: `attribute.sub[key]`.
pub(super) fn value_path(text: &str, context: &Context) -> Result<Path> {
    let mut parser =
        Parser { text, position: 0, depth: 0, has_attribute: false, options: QOptions { context, expand_values: &[], link_levels: 0 } };
    let (target, _) = parser.target()?;
    match target {
        Target::Attribute(path) if parser.rest().is_empty() => Ok(path),
        _ => Err(Error::bad(format!("`{}` is not the path of a value (expected e.g. `attribute.sub[key]`)", shown(text)))),
    }
}

struct Parser<'a> {
    text: &'a str,
    /// In bytes.
    position: usize,
    depth: usize,
    has_attribute: bool,
    options: QOptions<'a>,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.position..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.position += token.len();
        }
        found
    }

    fn error(&self, what: &str) -> Error {
        let n_chars = self.text[..self.position].chars().count();
        let found = if self.rest().is_empty() { "the end".to_owned() } else { format!("`{}`", shown(self.rest())) };
        Error::bad(format!("at character {}: {what}, found {found}", n_chars + 1))
    }

    fn any_of(&mut self) -> Result<Filter> {
        let mut list = vec![self.all_of()?];
        while self.take("|") {
            list.push(self.all_of()?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Filter::Or(list) })
    }

    fn all_of(&mut self) -> Result<Filter> {
        let mut list = vec![self.item()?];
        while self.take(";") {
            list.push(self.item()?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Filter::And(list) })
    }

    fn item(&mut self) -> Result<Filter> {
        if !self.take("(") {
            return self.term();
        }
        self.depth += 1;
        if self.depth > Q_DEPTH_MAX {
            return Err(self.error(&format!("parentheses are nested more than {Q_DEPTH_MAX} deep")));
        }
        let inner = self.any_of()?;
        if !self.take(")") {
            return Err(self.error("expected `)`"));
        }
        self.depth -= 1;
        Ok(inner)
    }

    fn term(&mut self) -> Result<Filter> {
        let mut links = Vec::new();
        while let Some(link) = self.link()? {
            links.push(link);
            if links.len() > self.options.link_levels {
                let levels = self.options.link_levels;
                return Err(
                    self.error(&format!("the path is too deep: joinLevel is {levels}{}", if levels == 0 { " without `join`" } else { "" }))
                );
            }
        }
        let (target, attribute) = self.target()?;
        for _ in &links {
            if !self.take("}") {
                return Err(self.error("expected `}`"));
            }
        }
        let comparison = self.comparison(attribute.as_ref())?;
        let condition = Filter::Value(target, comparison);
        Ok(links.into_iter().rev().fold(condition, |condition, (relationship, types)| {
            Filter::Linked(Box::new(LinkedCondition { relationship, types, condition }))
        }))
    }

    /// `relationship{` or `relationship{Type,Type:`, if there is one.
    fn link(&mut self) -> Result<Option<(Iri, Option<TypeSelector>)>> {
        let end = self.rest().find(PATH_ENDS).unwrap_or(self.rest().len());
        if end == 0 || !self.rest()[end..].starts_with('{') {
            return Ok(None);
        }
        let relationship = self.options.context.expand(&self.rest()[..end]).map_err(|e| self.error(&e.what))?;
        self.position += end + 1;
        self.has_attribute = true;
        // Types stand before a colon; a name with a prefix has none inside of braces (clause 4.9).
        let end = self.rest().find(|c| PATH_ENDS.contains(&c) && c != ',').unwrap_or(self.rest().len());
        let Some((types, _)) = self.rest()[..end].split_once(':') else { return Ok(Some((relationship, None))) };
        let names = types.split(',').map(|t| self.options.context.expand(t).map(TypeSelector::Is)).collect::<Result<Vec<_>>>();
        let names = names.map_err(|e| self.error(&e.what))?;
        self.position += types.len() + 1;
        Ok(Some((relationship, Some(TypeSelector::Or(names)))))
    }

    /// The path on the left, and the attribute that it starts from.
    fn target(&mut self) -> Result<(Target, Option<Iri>)> {
        let start = self.position;
        let end = self.rest().find(PATH_ENDS).unwrap_or(self.rest().len());
        let dotted = &self.rest()[..end];
        if dotted.is_empty() {
            return Err(self.error("expected the name of an attribute"));
        }
        self.position += end;
        let keys = if self.take("[") { self.keys()? } else { Vec::new() };
        self.path(dotted, keys).map_err(|e| {
            let n_chars = self.text[..start].chars().count();
            Error { what: format!("at character {}: {}", n_chars + 1, e.what), ..e }
        })
    }

    /// The keys up to the closing bracket, as written (clause 4.9: ECMAScript dot notation, not expanded).
    fn keys(&mut self) -> Result<Vec<String>> {
        let Some(end) = self.rest().find(']') else { return Err(self.error("expected `]`")) };
        let keys: Vec<String> = self.rest()[..end].split('.').map(str::to_owned).collect();
        if keys.iter().any(String::is_empty) {
            return Err(self.error("expected a key such as `[street.name]`"));
        }
        self.position += end + 1;
        Ok(keys)
    }

    fn path(&mut self, dotted: &str, keys: Vec<String>) -> Result<(Target, Option<Iri>)> {
        let segments = dotted_segments(dotted);
        let (first, subs) = segments.split_first().expect("splitting gives at least one part");
        if subs.is_empty() && keys.is_empty() {
            match *first {
                "createdAt" => return Ok((Target::EntityCreatedAt, None)),
                "modifiedAt" => return Ok((Target::EntityModifiedAt, None)),
                _ => {}
            }
        }
        match *first {
            "id" | "type" | "scope" => {
                return Err(Error::bad(format!("`{first}` cannot be asked for in q (use the parameters id, idPattern, type or scopeQ)")));
            }
            "observedAt" | "unitCode" | "datasetId" | "deletedAt" | "expiresAt" => {
                return Err(Error::bad(format!("`{first}` belongs to an attribute (write `attribute.{first}`)")));
            }
            _ => {}
        }
        let attribute = self.options.context.expand(first)?;
        let mut path = Path { keys, ..Path::of(attribute.clone()) };
        for (i, segment) in subs.iter().enumerate() {
            if i + 1 == subs.len() && path.keys.is_empty() && PATH_MEMBERS.contains(segment) {
                path.member = Some((*segment).to_owned());
            } else {
                path.subs.push(self.options.context.expand(segment)?);
            }
        }
        self.has_attribute = true;
        Ok((Target::Attribute(path), Some(attribute)))
    }

    fn comparison(&mut self, attribute: Option<&Iri>) -> Result<Comparison> {
        let expand = attribute.is_some_and(|a| self.options.expand_values.contains(a));
        if self.take("!~=") {
            return self.pattern().map(Comparison::NotMatches);
        }
        if self.take("~=") {
            return self.pattern().map(Comparison::Matches);
        }
        if self.take("==") {
            return Ok(match self.equal_operands(expand)? {
                Operands::List(list) => Comparison::Equal(list),
                Operands::Range(low, high) => Comparison::Between(low, high),
            });
        }
        if self.take("!=") {
            return Ok(match self.equal_operands(expand)? {
                Operands::List(list) => Comparison::NotEqual(list),
                Operands::Range(low, high) => Comparison::NotBetween(low, high),
            });
        }
        for (token, op) in [(">=", CompareOp::Ge), ("<=", CompareOp::Le), (">", CompareOp::Gt), ("<", CompareOp::Lt)] {
            if self.take(token) {
                let start = self.position;
                let operand = self.operand(expand)?;
                let orderable = !matches!(operand, Operand::Bool(_));
                if !orderable {
                    self.position = start;
                    return Err(self.error(&format!("`{token}` needs a number, a string or a time")));
                }
                if matches!(self.peek(), Some(',')) || self.rest().starts_with("..") {
                    return Err(self.error(&format!("`{token}` takes one value (lists and ranges go with == and !=)")));
                }
                return Ok(Comparison::Order(op, operand));
            }
        }
        match self.peek() {
            None | Some(';' | '|' | ')') => Ok(Comparison::Exists),
            Some('=') => Err(self.error("expected `==`")),
            Some(_) => Err(self.error("expected an operator (==, !=, >, >=, <, <=, ~=, !~=), `;`, `|` or the end")),
        }
    }

    fn equal_operands(&mut self, expand: bool) -> Result<Operands> {
        let first = self.operand(expand)?;
        if self.take("..") {
            let start = self.position;
            let last = self.operand(expand)?;
            let fit = std::mem::discriminant(&first) == std::mem::discriminant(&last) && !matches!(first, Operand::Bool(_));
            if !fit {
                self.position = start;
                return Err(self.error("the ends of a range must both be numbers, strings, or times of one form"));
            }
            return Ok(Operands::Range(first, last));
        }
        let mut list = vec![first];
        while self.take(",") {
            if list.len() >= LIST_VALUES_MAX {
                return Err(self.error(&format!("a list has at most {LIST_VALUES_MAX} values")));
            }
            list.push(self.operand(expand)?);
        }
        Ok(Operands::List(list))
    }

    fn operand(&mut self, expand: bool) -> Result<Operand> {
        let start = self.position;
        let operand = if self.peek() == Some('"') {
            Operand::Text(self.quoted()?)
        } else {
            let rest = self.rest();
            let mut end = rest.find([';', '|', ',', ')', '(', '"']).unwrap_or(rest.len());
            if let Some(dots) = rest[..end].find("..") {
                end = dots;
            }
            if end == 0 {
                return Err(self.error("expected a value"));
            }
            let word = &rest[..end];
            // `a>>1`, `a=<1`: a mistyped operator, not a text that begins with one.
            if word.starts_with(['<', '>', '=', '~', '!']) {
                return Err(self.error("expected a value, found a second operator (a string that begins like one is put in quotes)"));
            }
            self.position += end;
            if matches!(self.peek(), Some('(' | '"')) {
                return Err(self.error("expected `;`, `|`, `,` or the end (a string with such characters is put in quotes)"));
            }
            classified(word)
        };
        match operand {
            Operand::Text(name) | Operand::Uri(name) if expand => match self.options.context.expand(&name) {
                Ok(iri) => Ok(Operand::Uri(iri.as_str().to_owned())),
                Err(e) => {
                    self.position = start;
                    Err(self.error(&e.what))
                }
            },
            other => Ok(other),
        }
    }

    /// A JSON string.
    fn quoted(&mut self) -> Result<String> {
        let bytes = self.rest().as_bytes();
        let mut i = 1;
        while i < bytes.len() && bytes[i] != b'"' {
            i += if bytes[i] == b'\\' { 2 } else { 1 };
        }
        if i >= bytes.len() {
            return Err(self.error("the string has no closing quote"));
        }
        // A quote is ASCII, so that this is a character boundary.
        let literal = &self.rest()[..=i];
        match serde_json::from_str(literal) {
            Ok(text) => {
                self.position += literal.len();
                Ok(text)
            }
            Err(_) => Err(self.error("not a JSON string")),
        }
    }

    /// A regular expression: quoted, or up to the `;`, `|` or `)` that is outside of its own groups and classes.
    fn pattern(&mut self) -> Result<Pattern> {
        let start = self.position;
        let source = if self.peek() == Some('"') { self.quoted()? } else { self.bare_pattern() };
        if source.is_empty() {
            return Err(self.error("expected a regular expression"));
        }
        Pattern::new(&source).map_err(|e| {
            self.position = start;
            self.error(&e.to_string().replace('\n', " "))
        })
    }

    fn bare_pattern(&mut self) -> String {
        let rest = self.rest();
        let (mut groups, mut in_class, mut escaped, mut end) = (0_usize, false, false, rest.len());
        for (i, c) in rest.char_indices() {
            if escaped {
                escaped = false;
                continue;
            }
            match c {
                '\\' => escaped = true,
                '[' => in_class = true,
                ']' => in_class = false,
                '(' if !in_class => groups += 1,
                ')' if !in_class && groups > 0 => groups -= 1,
                ';' | '|' | ')' if !in_class && groups == 0 => {
                    end = i;
                    break;
                }
                _ => {}
            }
        }
        self.position += end;
        rest[..end].to_owned()
    }
}

enum Operands {
    List(Vec<Operand>),
    Range(Operand, Operand),
}

/// The parts of a dotted path. The first may be a full IRI, whose own dots come before its last `/` or `#`.
fn dotted_segments(dotted: &str) -> Vec<&str> {
    let host_end = match dotted.find("://") {
        Some(_) => dotted.rfind(['/', '#']).map_or(0, |i| i + 1),
        None => 0,
    };
    match dotted[host_end..].find('.') {
        None => vec![dotted],
        Some(dot) => {
            let split = host_end + dot;
            std::iter::once(&dotted[..split]).chain(dotted[split + 1..].split('.')).collect()
        }
    }
}

/// What an unquoted word is.
fn classified(word: &str) -> Operand {
    match word {
        "true" => return Operand::Bool(true),
        "false" => return Operand::Bool(false),
        _ => {}
    }
    // Only what JSON calls a number: not `inf`, `nan` or `+1`.
    if word.starts_with(|c: char| c.is_ascii_digit() || c == '-')
        && let Ok(number) = serde_json::from_str::<f64>(word)
    {
        return Operand::Number(number);
    }
    if let Ok(instant) = word.parse::<Instant>() {
        return Operand::Instant(instant);
    }
    if is_date(word) {
        return Operand::Date(word.to_owned());
    }
    if is_time(word) {
        return Operand::Time(word.replace(',', "."));
    }
    if word.parse::<Iri>().is_ok() { Operand::Uri(word.to_owned()) } else { Operand::Text(word.to_owned()) }
}

fn is_date(word: &str) -> bool {
    word.len() == 10 && format!("{word}T00:00:00Z").parse::<Instant>().is_ok()
}

fn is_time(word: &str) -> bool {
    word.len() >= 9 && word.is_ascii() && format!("2000-01-01T{word}").parse::<Instant>().is_ok()
}

#[cfg(test)]
mod tests;
