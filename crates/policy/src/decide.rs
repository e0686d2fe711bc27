//! The decision: who asks to do what, for which purpose, now.

use std::collections::BTreeMap;
use std::fmt;

use entity::{Instant, Iri};
use serde::{Deserialize, Serialize};

use crate::{Agreement, CityName, Grant, Lang, Permit, PublicKey, Purpose, Status};

/// Who asks, as the edge has made sure of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Principal {
    /// A person or program of the city itself, with all rights.
    Operator {
        /// How it is called in the audit record.
        name: String,
    },
    /// Another city: the question carried a signature by `key`, and the list of members gives that key to `city`.
    Peer {
        /// The city.
        city: CityName,
        /// The key.
        key: PublicKey,
    },
    /// Nobody known.
    Anonymous,
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator { name } => write!(f, "operator `{name}`"),
            Self::Peer { city, .. } => write!(f, "city `{city}`"),
            Self::Anonymous => f.write_str("anonymous"),
        }
    }
}

/// What somebody wants to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// See data.
    Read,
    /// Change data.
    Write,
    /// Change the node itself: members, agreements, configuration.
    Administer,
}

/// A request to decide on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Who asks.
    pub principal: Principal,
    /// To do what.
    pub action: Action,
    /// What for; a peer must say it.
    pub purpose: Option<Purpose>,
    /// When.
    pub now: Instant,
}

/// What came of a request.
#[derive(Clone, PartialEq, Debug)]
pub enum Decision {
    /// Yes, so far.
    Permit(Permit),
    /// No.
    Deny(Denial),
}

/// A "no" that can be explained to the one who asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Denial {
    /// The city that was asked.
    pub provider: CityName,
    /// The city that asked, if it was one.
    pub consumer: Option<CityName>,
    /// Why not.
    pub reason: Reason,
}

/// Why a request was denied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// Nobody known asked.
    Anonymous,
    /// A peer asked for more than reading.
    OnlyReading {
        /// What it asked for.
        action: Action,
    },
    /// No agreement names the consumer.
    NoAgreement,
    /// There are agreements with the consumer; each has its obstacle. The one nearest to a "yes" comes first.
    Blocked(Vec<(Iri, Obstacle)>),
}

/// Why an agreement with the consumer does not permit the request. In order of nearness: the first are about the question, the last about
/// the agreement.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Obstacle {
    /// The question does not say what for.
    NoPurpose {
        /// What is agreed.
        agreed: Purpose,
    },
    /// It is in force, for another purpose.
    Purpose {
        /// What the question says.
        asked: Purpose,
        /// What is agreed.
        agreed: Purpose,
    },
    /// Too early.
    NotYetValid {
        /// In force from then on.
        from: Instant,
    },
    /// Halted.
    Suspended,
    /// Not accepted yet.
    Offered,
    /// Too late.
    Expired {
        /// It ended then.
        at: Instant,
    },
    /// Ended.
    Revoked,
    /// The agreement was made with another key.
    Key,
}

/// What a city's agreements come to.
#[derive(Clone, Debug)]
pub struct PolicySet {
    provider: CityName,
    by_consumer: BTreeMap<CityName, Vec<Agreement>>,
}

impl PolicySet {
    /// Compiles the agreements under which `provider` shares. Agreements of other providers are not its to decide on and are left out; of
    /// two with one id the later one counts.
    #[must_use]
    pub fn compile(provider: CityName, agreements: impl IntoIterator<Item = Agreement>) -> Self {
        let by_id: BTreeMap<Iri, Agreement> =
            agreements.into_iter().filter(|a| a.provider == provider).map(|a| (a.id.clone(), a)).collect();
        let mut by_consumer: BTreeMap<CityName, Vec<Agreement>> = BTreeMap::new();
        for agreement in by_id.into_values() {
            by_consumer.entry(agreement.consumer.clone()).or_default().push(agreement);
        }
        Self { provider, by_consumer }
    }

    /// The city that decides.
    #[must_use]
    pub const fn provider(&self) -> &CityName {
        &self.provider
    }

    /// The agreements with a consumer, in force or not, in order of id.
    #[must_use]
    pub fn agreements_with(&self, consumer: &CityName) -> &[Agreement] {
        self.by_consumer.get(consumer).map(Vec::as_slice).unwrap_or_default()
    }

    /// Decides. What no rule permits is denied.
    #[must_use]
    pub fn decide(&self, request: &Request) -> Decision {
        let deny = |consumer: Option<&CityName>, reason| {
            Decision::Deny(Denial { provider: self.provider.clone(), consumer: consumer.cloned(), reason })
        };
        let (city, key) = match &request.principal {
            Principal::Operator { .. } => return Decision::Permit(Permit::Everything),
            Principal::Anonymous => return deny(None, Reason::Anonymous),
            Principal::Peer { city, key } => (city, key),
        };
        if request.action != Action::Read {
            return deny(Some(city), Reason::OnlyReading { action: request.action });
        }
        let mut grants = Vec::new();
        let mut blocked = Vec::new();
        for agreement in self.agreements_with(city) {
            match obstacle(agreement, key, request) {
                None => grants.push(Grant::of(agreement)),
                Some(obstacle) => blocked.push((agreement.id.clone(), obstacle)),
            }
        }
        if !grants.is_empty() {
            return Decision::Permit(Permit::granted(grants));
        }
        if blocked.is_empty() {
            return deny(Some(city), Reason::NoAgreement);
        }
        // Who comes with another key learns nothing about agreements made with it.
        if blocked.iter().any(|(_, o)| *o != Obstacle::Key) {
            blocked.retain(|(_, o)| *o != Obstacle::Key);
        }
        blocked.sort_by(|a, b| a.1.cmp(&b.1).then_with(|| a.0.cmp(&b.0)));
        deny(Some(city), Reason::Blocked(blocked))
    }
}

fn obstacle(agreement: &Agreement, key: &PublicKey, request: &Request) -> Option<Obstacle> {
    if agreement.consumer_key != *key {
        return Some(Obstacle::Key);
    }
    match agreement.status {
        Status::Revoked => return Some(Obstacle::Revoked),
        _ if request.now >= agreement.valid_until => return Some(Obstacle::Expired { at: agreement.valid_until }),
        Status::Offered => return Some(Obstacle::Offered),
        Status::Suspended => return Some(Obstacle::Suspended),
        Status::Active if request.now < agreement.valid_from => return Some(Obstacle::NotYetValid { from: agreement.valid_from }),
        Status::Active => {}
    }
    let agreed = || agreement.purpose.clone();
    match &request.purpose {
        None => Some(Obstacle::NoPurpose { agreed: agreed() }),
        Some(asked) if *asked != agreement.purpose => Some(Obstacle::Purpose { asked: asked.clone(), agreed: agreed() }),
        Some(_) => None,
    }
}

impl Decision {
    /// What was decided and on what grounds, for the audit record and the operator.
    #[must_use]
    pub fn explain(&self, lang: Lang) -> String {
        match self {
            Self::Deny(denial) => denial.explain(lang),
            Self::Permit(Permit::Everything) => match lang {
                Lang::En => "permitted: an operator of the city itself sees everything".into(),
                Lang::Zh => "允许：本市操作员可查看全部数据".into(),
            },
            Self::Permit(permit) => {
                let ids = permit.agreements().iter().map(|a| format!("`{a}`")).collect::<Vec<_>>();
                match lang {
                    Lang::En => format!("permitted by {}", ids.join(", ")),
                    Lang::Zh => format!("依据以下协议允许：{}", ids.join("、")),
                }
            }
        }
    }
}

impl fmt::Display for Denial {
    /// In English, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let provider = &self.provider;
        let consumer = self.consumer.as_ref().map_or("anybody", CityName::as_str);
        match &self.reason {
            Reason::Anonymous => write!(f, "who reads from `{provider}` must say who they are: no credentials and no signature were given"),
            Reason::OnlyReading { action } => {
                let what = if *action == Action::Write { "write to" } else { "administer" };
                write!(f, "no agreement can let `{consumer}` {what} `{provider}`: agreements between cities are about reading")
            }
            Reason::NoAgreement => write!(f, "no agreement in force lets `{consumer}` read from `{provider}`"),
            Reason::Blocked(list) => {
                write!(f, "no agreement in force lets `{consumer}` read from `{provider}`: {}", self.obstacles(Lang::En, list))
            }
        }
    }
}

impl Denial {
    /// A short word for the reason, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match &self.reason {
            Reason::Anonymous => "anonymous",
            Reason::OnlyReading { .. } => "only-reading",
            Reason::NoAgreement => "no-agreement",
            Reason::Blocked(list) => list.first().map_or("no-agreement", |(_, o)| o.code()),
        }
    }

    /// Why, in the language of the reader.
    #[must_use]
    pub fn explain(&self, lang: Lang) -> String {
        if lang == Lang::En {
            return self.to_string();
        }
        let provider = &self.provider;
        let consumer = self.consumer.as_ref().map_or("任何人", CityName::as_str);
        match &self.reason {
            Reason::Anonymous => format!("读取 {provider} 的数据须表明身份：请求中没有凭证，也没有签名"),
            Reason::OnlyReading { action } => {
                let what = if *action == Action::Write { "写入" } else { "管理" };
                format!("任何协议都不能允许 {consumer} {what} {provider}：城市间协议只涉及读取")
            }
            Reason::NoAgreement => format!("没有生效的协议允许 {consumer} 读取 {provider} 的数据"),
            Reason::Blocked(list) => format!("没有生效的协议允许 {consumer} 读取 {provider} 的数据：{}", self.obstacles(lang, list)),
        }
    }

    fn obstacles(&self, lang: Lang, list: &[(Iri, Obstacle)]) -> String {
        // A wrong key is one fact, however many agreements there are, and their names are not the asker's business.
        if list.iter().all(|(_, o)| *o == Obstacle::Key) {
            let consumer = self.consumer.as_ref().map_or("", CityName::as_str);
            return match lang {
                Lang::En => format!("the question is signed with another key than the agreements with `{consumer}` name"),
                Lang::Zh => format!("签名所用密钥与 {consumer} 各协议中的密钥不同"),
            };
        }
        let separator = if lang == Lang::En { "; " } else { "；" };
        list.iter().map(|(id, o)| o.explain(lang, id)).collect::<Vec<_>>().join(separator)
    }
}

impl Obstacle {
    /// A short word for it, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoPurpose { .. } => "no-purpose",
            Self::Purpose { .. } => "other-purpose",
            Self::NotYetValid { .. } => "not-yet-valid",
            Self::Suspended => "suspended",
            Self::Offered => "not-accepted",
            Self::Expired { .. } => "expired",
            Self::Revoked => "revoked",
            Self::Key => "other-key",
        }
    }

    fn explain(&self, lang: Lang, id: &Iri) -> String {
        let what = match (lang, self) {
            (Lang::En, Self::NoPurpose { agreed }) => format!("is for the purpose `{agreed}`, the question states none"),
            (Lang::En, Self::Purpose { asked, agreed }) => format!("is for the purpose `{agreed}`, the question says `{asked}`"),
            (Lang::En, Self::NotYetValid { from }) => format!("is in force only from {from}"),
            (Lang::En, Self::Suspended) => "is suspended".into(),
            (Lang::En, Self::Offered) => "is offered, but not accepted yet".into(),
            (Lang::En, Self::Expired { at }) => format!("expired at {at}"),
            (Lang::En, Self::Revoked) => "is revoked".into(),
            (Lang::En, Self::Key) => "names another key".into(),
            (Lang::Zh, Self::NoPurpose { agreed }) => format!("的用途是“{agreed}”，而询问未说明用途"),
            (Lang::Zh, Self::Purpose { asked, agreed }) => format!("的用途是“{agreed}”，而询问的用途是“{asked}”"),
            (Lang::Zh, Self::NotYetValid { from }) => format!("自 {from} 起才生效"),
            (Lang::Zh, Self::Suspended) => "已中止".into(),
            (Lang::Zh, Self::Offered) => "已提出，尚未接受".into(),
            (Lang::Zh, Self::Expired { at }) => format!("已于 {at} 到期"),
            (Lang::Zh, Self::Revoked) => "已撤销".into(),
            (Lang::Zh, Self::Key) => "指定的是另一把密钥".into(),
        };
        match lang {
            Lang::En => format!("agreement `{id}` {what}"),
            Lang::Zh => format!("协议 {id} {what}"),
        }
    }
}

#[cfg(test)]
mod tests;
