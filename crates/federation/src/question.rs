//! What travels between cities: a question, and each city's answer. JSON, versioned, bounded; checked down to each name and instant.

use std::ops::Range;

use entity::{Filter, Instant, Iri, Series, TypeSelector};
use policy::{CityName, Denial, Lang, Purpose, Shared};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

mod check;

/// The version of the messages. Another one is refused: a question that is half understood could be answered too generously.
pub const VERSION: u64 = 1;

/// The largest question, in bytes; room for a detailed polygon.
pub const QUESTION_BYTES_MAX: usize = 256 * 1024;

/// The largest answer, in bytes; [`ENTITIES_MAX`] entities of 1 KB several times over.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The most entities in one answer; who wants more asks page by page.
pub const ENTITIES_MAX: u32 = 10_000;

/// The most attribute instances in the answer about one entity's past.
pub const INSTANCES_MAX: u32 = 100_000;

/// How deep conditions may be nested; people need four or five.
pub const FILTER_DEPTH_MAX: usize = 16;

/// The most conditions in one filter.
pub const FILTER_NODES_MAX: usize = 1_000;

/// The most regular expressions in one filter: each is compiled, up to a megabyte.
pub const PATTERNS_MAX: usize = 16;

/// The most attribute names in a projection.
pub const NAMES_MAX: usize = 256;

/// The longest text in a message, such as a reason, in characters.
pub const TEXT_CHARS_MAX: usize = 4_000;

/// The longest id of a question, in characters.
const ID_CHARS_MAX: usize = 64;

/// A question from one city to another.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Question {
    /// Which question, for the record of both sides: letters, digits, `-` and `_`.
    pub id: String,
    /// Who asks. The receiver holds it against the signature's key: [`Question::is_from`].
    pub from: CityName,
    /// What for.
    pub purpose: Purpose,
    /// Which entities, judged by what the asker may see of them.
    pub filter: Filter,
    /// Of which types; none for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub types: Option<TypeSelector>,
    /// Which attributes to return; none for all that may be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Vec<Iri>>,
    /// At most so many entities, 1 to [`ENTITIES_MAX`].
    pub limit: u32,
    /// What about them.
    pub kind: Kind,
}

/// What a question is about.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// The entities as they are now.
    Entities,
    /// One entity's past.
    Evolution(Evolution),
}

/// Which part of one entity's past.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evolution {
    /// The entity.
    pub entity: Iri,
    /// The interval `[start, end)` of the time property; none for all time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Range<Instant>>,
    /// Which time the interval speaks of.
    #[serde(default)]
    pub time_property: TimeProperty,
    /// Only the newest so many instances of each attribute, newest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_n: Option<u32>,
    /// As it was known at this recorded time; none for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Instant>,
    /// At most so many instances in all, 1 to [`INSTANCES_MAX`].
    pub instances_max: u32,
}

/// Which time a question about the past speaks of (ETSI GS CIM 009 V1.9.1, clause 4.11).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TimeProperty {
    /// When the value was true in the world.
    #[default]
    ObservedAt,
    /// When it was recorded.
    ModifiedAt,
    /// When it was first recorded.
    CreatedAt,
}

/// One city's answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Answer {
    /// The id of the question.
    pub question: String,
    /// Who answers.
    pub city: CityName,
    /// When, by its clock.
    pub answered_at: Instant,
    /// What.
    pub outcome: Outcome,
}

/// What a city answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Outcome {
    /// The permitted part of its entities.
    Entities {
        /// The agreements that the permission rests on, also if nothing was found.
        agreements: Vec<Iri>,
        /// What was found, each with the agreements under which it is given.
        entities: Vec<Shared>,
        /// There is more than the limit asked for.
        truncated: bool,
    },
    /// The permitted part of one entity's past; none if there is no such entity, or none that may be seen.
    Evolution {
        /// The agreements that the permission rests on.
        agreements: Vec<Iri>,
        /// What was found.
        past: Option<Past>,
    },
    /// The city does not let the asker see this.
    Denied {
        /// A short word for the reason, for programs.
        code: String,
        /// Why, in English.
        reason: String,
        /// Why, in Chinese.
        reason_zh: String,
    },
    /// The city could not answer: a limit, a damaged file.
    Failed {
        /// Why.
        reason: String,
    },
}

/// One entity's past.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Past {
    /// The entity.
    pub id: Iri,
    /// Its types.
    pub types: Vec<Iri>,
    /// Instances by attribute, in ascending time; with `last_n` descending.
    pub attributes: Series,
    /// Set when the answer was cut: the time of the last instance in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_at: Option<Instant>,
}

/// Why a message from another city cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Too large to look at.
    #[error("the {what} has {found_bytes} bytes, more than the limit of {max_bytes}")]
    TooLarge {
        /// `question` or `answer`.
        what: &'static str,
        /// Its size.
        found_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// Made by another generation of nodes.
    #[error("the {what} has version {found}, this node understands version {VERSION}: one of the two nodes needs an upgrade")]
    Version {
        /// `question` or `answer`.
        what: &'static str,
        /// The version found.
        found: u64,
    },
    /// Not JSON, or not of this form.
    #[error("the {what} cannot be read: {reason}")]
    Form {
        /// `question` or `answer`.
        what: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// More of something than a message may have.
    #[error("{member} has {found} {of}, more than the limit of {max}")]
    Limit {
        /// Which member.
        member: &'static str,
        /// How many.
        found: usize,
        /// Of what.
        of: &'static str,
        /// The limit.
        max: usize,
    },
    /// A value that cannot be.
    #[error("{member} is `{found}`, expected {expected}")]
    Value {
        /// Which member.
        member: &'static str,
        /// What is there, shortened.
        found: String,
        /// What should be there.
        expected: String,
    },
}

/// Why a question does not come from who it says, or an answer does not belong to a question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MismatchError {
    /// Another city asks.
    #[error("`{found}` asks in the name of `{expected}`")]
    Asker {
        /// Who signed.
        found: CityName,
        /// Who is named in the question.
        expected: CityName,
    },
    /// Another city answers.
    #[error("`{found}` answers in the name of `{expected}`")]
    City {
        /// Who is named in the answer.
        found: CityName,
        /// Who was asked.
        expected: CityName,
    },
    /// It answers another question.
    #[error("the answer is to question `{found}` (expected `{expected}`)")]
    Question {
        /// The id found.
        found: String,
        /// The id asked.
        expected: String,
    },
    /// It gives entities where a past was asked for, or the other way round.
    #[error("the answer is about {found} (asked was about {expected})")]
    Kind {
        /// What it is about.
        found: &'static str,
        /// What was asked.
        expected: &'static str,
    },
    /// It gives more than was asked for.
    #[error("the answer has {found} entities, more than the {limit} asked for")]
    TooMany {
        /// How many.
        found: usize,
        /// How many at most.
        limit: u32,
    },
    /// It tells of another entity.
    #[error("the answer is about entity `{found}` (asked was about `{expected}`)")]
    Entity {
        /// Which one.
        found: Iri,
        /// Which was asked for.
        expected: Iri,
    },
}

/// The outermost layer: read first, so that another version is told from damage.
#[derive(Deserialize)]
struct Envelope<'a> {
    version: u64,
    #[serde(borrow, default)]
    question: Option<&'a RawValue>,
    #[serde(borrow, default)]
    answer: Option<&'a RawValue>,
}

fn open<'a>(what: &'static str, bytes: &'a [u8], max_bytes: usize) -> Result<Envelope<'a>, MessageError> {
    if bytes.len() > max_bytes {
        return Err(MessageError::TooLarge { what, found_bytes: bytes.len(), max_bytes });
    }
    let envelope: Envelope<'a> = read(what, bytes)?;
    if envelope.version != VERSION {
        return Err(MessageError::Version { what, found: envelope.version });
    }
    Ok(envelope)
}

fn read<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, MessageError> {
    serde_json::from_slice(bytes).map_err(|e| MessageError::Form { what, reason: e.to_string() })
}

fn content<T: DeserializeOwned>(what: &'static str, raw: Option<&RawValue>) -> Result<T, MessageError> {
    let raw = raw.ok_or_else(|| MessageError::Form { what, reason: format!("member `{what}` is missing") })?;
    read(what, raw.get().as_bytes())
}

impl Question {
    /// The message as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Out<'a> {
            version: u64,
            question: &'a Question,
        }
        serde_json::to_vec(&Out { version: VERSION, question: self }).expect("a question is JSON")
    }

    /// Reads and checks a question.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        const WHAT: &str = "question";
        let envelope = open(WHAT, bytes, QUESTION_BYTES_MAX)?;
        if let Some(raw) = envelope.question {
            // Before anything is compiled.
            check::patterns(raw.get())?;
        }
        let question: Self = content(WHAT, envelope.question)?;
        check::question(&question)?;
        Ok(question)
    }

    /// Is it asked by the city whose signature it came with?
    ///
    /// Errors: [`MismatchError::Asker`].
    pub fn is_from(&self, signer: &CityName) -> Result<(), MismatchError> {
        if self.from == *signer { Ok(()) } else { Err(MismatchError::Asker { found: signer.clone(), expected: self.from.clone() }) }
    }

    /// The whole condition: types, and the filter, and for a past the entity.
    #[must_use]
    pub fn condition(&self) -> Filter {
        let mut all = Filter::all();
        if let Some(types) = &self.types {
            all = all.and(Filter::Type(types.clone()));
        }
        if let Kind::Evolution(evolution) = &self.kind {
            all = all.and(Filter::Id(vec![evolution.entity.clone()]));
        }
        all.and(self.filter.clone())
    }
}

impl Answer {
    /// A denial, as it travels.
    #[must_use]
    pub fn denied(question: &Question, city: CityName, now: Instant, denial: &Denial) -> Self {
        let outcome = Outcome::Denied {
            code: denial.code().to_owned(),
            reason: shortened(denial.explain(Lang::En)),
            reason_zh: shortened(denial.explain(Lang::Zh)),
        };
        Self { question: question.id.clone(), city, answered_at: now, outcome }
    }

    /// A failure, as it travels.
    #[must_use]
    pub fn failed(question: &Question, city: CityName, now: Instant, reason: &str) -> Self {
        let outcome = Outcome::Failed { reason: shortened(reason.to_owned()) };
        Self { question: question.id.clone(), city, answered_at: now, outcome }
    }

    /// The message as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Out<'a> {
            version: u64,
            answer: &'a Answer,
        }
        serde_json::to_vec(&Out { version: VERSION, answer: self }).expect("an answer is JSON")
    }

    /// Reads and checks an answer.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        const WHAT: &str = "answer";
        let envelope = open(WHAT, bytes, ANSWER_BYTES_MAX)?;
        let answer: Self = content(WHAT, envelope.answer)?;
        check::answer(&answer)?;
        Ok(answer)
    }

    /// Is it the answer of `city` to `question`, and no more than that asked for?
    pub fn fits(&self, question: &Question, city: &CityName) -> Result<(), MismatchError> {
        if self.city != *city {
            return Err(MismatchError::City { found: self.city.clone(), expected: city.clone() });
        }
        if self.question != question.id {
            return Err(MismatchError::Question { found: self.question.clone(), expected: question.id.clone() });
        }
        match (&self.outcome, &question.kind) {
            (Outcome::Denied { .. } | Outcome::Failed { .. }, _) | (Outcome::Evolution { past: None, .. }, Kind::Evolution(_)) => Ok(()),
            (Outcome::Entities { entities, .. }, Kind::Entities) if entities.len() > question.limit as usize => {
                Err(MismatchError::TooMany { found: entities.len(), limit: question.limit })
            }
            (Outcome::Entities { .. }, Kind::Entities) => Ok(()),
            (Outcome::Evolution { past: Some(past), .. }, Kind::Evolution(evolution)) if past.id != evolution.entity => {
                Err(MismatchError::Entity { found: past.id.clone(), expected: evolution.entity.clone() })
            }
            (Outcome::Evolution { .. }, Kind::Evolution(_)) => Ok(()),
            (Outcome::Entities { .. }, Kind::Evolution(_)) => Err(MismatchError::Kind { found: "entities", expected: "a past" }),
            (Outcome::Evolution { .. }, Kind::Entities) => Err(MismatchError::Kind { found: "a past", expected: "entities" }),
        }
    }
}

fn shortened(text: String) -> String {
    if text.chars().count() <= TEXT_CHARS_MAX { text } else { text.chars().take(TEXT_CHARS_MAX - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests;
