//! Topics with variables, and ids made of them.

use std::fmt::Write as _;

use super::ProfileError;
use crate::topic::{TOPIC_LEVELS_MAX, TopicFilter, TopicName};

/// A topic pattern: levels, some of them variables.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct TopicPattern {
    levels: Vec<Level>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Level {
    Fixed(String),
    Variable(String),
}

impl TopicPattern {
    pub(super) fn parse(profile: &str, text: &str) -> Result<Self, ProfileError> {
        let error = |why: String| ProfileError::Topic { profile: profile.to_owned(), topic: text.to_owned(), why };
        let mut levels: Vec<Level> = Vec::new();
        for level in text.split('/') {
            levels.push(match level.strip_prefix('{').and_then(|l| l.strip_suffix('}')) {
                Some(name) if is_name(name) => {
                    let variable = Level::Variable(name.to_owned());
                    if levels.contains(&variable) {
                        return Err(error(format!("variable `{name}` occurs twice")));
                    }
                    variable
                }
                Some(name) => return Err(error(format!("`{name}` is not a variable name (expected letters, digits and `_`)"))),
                None if level.contains(['{', '}']) => return Err(error(format!("in `{level}` a variable is only a part of the level"))),
                None => Level::Fixed(level.to_owned()),
            });
        }
        let pattern = Self { levels };
        // A pattern is as long and deep as a topic may be, and its fixed levels are those of a topic name.
        let example: String = pattern.written(|_| "x");
        example.parse::<TopicName>().map_err(|e| error(e.to_string()))?;
        debug_assert!(pattern.levels.len() <= TOPIC_LEVELS_MAX);
        Ok(pattern)
    }

    fn written<'a>(&'a self, variable: impl Fn(&'a str) -> &'a str) -> String {
        let levels: Vec<&str> = self
            .levels
            .iter()
            .map(|l| match l {
                Level::Fixed(text) => text.as_str(),
                Level::Variable(name) => variable(name),
            })
            .collect();
        levels.join("/")
    }

    /// The filter that selects the topics of this pattern.
    pub(super) fn filter(&self) -> TopicFilter {
        self.written(|_| "+").parse().expect("a topic with `+` for some levels is a filter")
    }

    /// There is a topic that both decode.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.levels.len() == other.levels.len()
            && self.levels.iter().zip(&other.levels).all(|pair| match pair {
                (Level::Fixed(a), Level::Fixed(b)) => a == b,
                _ => true,
            })
    }

    pub(super) fn has(&self, variable: &str) -> bool {
        self.levels.iter().any(|l| matches!(l, Level::Variable(name) if name == variable))
    }

    /// What the variable is in `topic`; empty levels are no value.
    pub(super) fn value_in<'t>(&self, topic: &'t TopicName, variable: &str) -> Option<&'t str> {
        let at = self.levels.iter().position(|l| matches!(l, Level::Variable(name) if name == variable))?;
        topic.levels().nth(at).filter(|v| !v.is_empty())
    }

    pub(super) fn matches(&self, topic: &TopicName) -> bool {
        let mut levels = topic.levels();
        self.levels.iter().all(|want| match (want, levels.next()) {
            (Level::Fixed(text), Some(level)) => text == level,
            (Level::Variable(_), Some(_)) => true,
            (_, None) => false,
        }) && levels.next().is_none()
    }
}

/// An id with variables: fixed text and names in turn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct IdTemplate {
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Fixed(String),
    Variable(String),
}

impl IdTemplate {
    pub(super) fn parse(profile: &str, text: &str) -> Result<Self, ProfileError> {
        let error = |why: String| ProfileError::EntityId { profile: profile.to_owned(), template: text.to_owned(), why };
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((fixed, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(|| error("a `{` is not closed".to_owned()))?;
            if !is_name(name) {
                return Err(error(format!("`{name}` is not a variable name (expected letters, digits and `_`)")));
            }
            // Otherwise `{a}{b}` would give one id to different devices.
            if fixed.is_empty() && matches!(parts.last(), Some(Part::Variable(_))) {
                return Err(error(format!("there is no text between the variables before `{name}`")));
            }
            parts.push(Part::Fixed(fixed.to_owned()));
            parts.push(Part::Variable(name.to_owned()));
            rest = after;
        }
        parts.push(Part::Fixed(rest.to_owned()));
        let template = Self { parts };
        if !template.parts.iter().any(|p| matches!(p, Part::Variable(_))) {
            return Err(error("there is no variable: every device would be the same entity".to_owned()));
        }
        let example = template.fill(|_| Ok::<_, std::convert::Infallible>("x".to_owned())).unwrap_or_else(|e| match e {});
        example.parse::<entity::Iri>().map_err(|e| error(e.to_string()))?;
        Ok(template)
    }

    /// The id with each variable's value put in, what an IRI or our separators would misunderstand percent-encoded.
    pub(super) fn fill<E>(&self, value: impl Fn(&str) -> Result<String, E>) -> Result<String, E> {
        let mut id = String::new();
        for part in &self.parts {
            match part {
                Part::Fixed(text) => id.push_str(text),
                Part::Variable(name) => encode_into(&mut id, &value(name)?),
            }
        }
        Ok(id)
    }
}

/// Letters and digits of any script and `-._~` stay (the unreserved characters of RFC 3987). All others are encoded, `:` too:
/// otherwise station `b` of city `a:x` and station `x:b` of city `a` would be one entity.
fn encode_into(id: &mut String, value: &str) {
    for c in value.chars() {
        if c.is_alphanumeric() || matches!(c, '-' | '.' | '_' | '~') {
            id.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                write!(id, "%{byte:02X}").expect("writing to a string succeeds");
            }
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
