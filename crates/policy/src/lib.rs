//! Who may see and do what: principals, agreements, obligations, and the decision they lead to.
//!
//! A city shares data with another one by an [`Agreement`]: an entity like any other, which this crate reads strictly (a member that would
//! not be enforced is refused, not ignored). A [`PolicySet`] is compiled from a city's agreements; it answers each [`Request`] with a
//! [`Decision`]: a [`Permit`] or a [`Denial`] that says why in the user's words. A permit is not a "yes" but a function from an entity to
//! the part of it that may be seen: [`Permit::answer`].
//!
//! Rules that hold throughout, each with a property test:
//!
//! * **Deny by default.** A peer sees something only because an agreement in force names it, its key and the purpose.
//! * **Questions look only at what may be seen.** A peer's filter is evaluated on the projected and rounded copy, never on the true entity,
//!   so a clever question cannot probe a hidden attribute or the exact place.
//! * **Agreements add up, they do not multiply.** With several agreements each attribute in an answer is exactly as one single agreement gives it.
//!
//! **Invariant:** no I/O, no clock, no HTTP in here; `now` is given.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod agreement;
mod decide;
mod grant;
mod name;
pub mod term;

pub use agreement::{Agreement, AgreementError, LEGAL_BASIS_CHARS_MAX, Lang, NAMES_MAX, POSITION_DECIMALS_MAX, Problem, Selection, Status};
pub use decide::{Action, Decision, Denial, Obstacle, PolicySet, Principal, Reason, Request};
pub use grant::{Grant, Obligation, Permit, Shared, SharedPast};
pub use name::{CITY_NAME_CHARS_MAX, CityName, NameError, PURPOSE_CHARS_MAX, PublicKey, PublicKeyError, Purpose};
