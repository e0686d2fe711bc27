//! Distributed operations (ETSI GS CIM 009 V1.9.1, clauses 4.3.6, 4.5.5, 5.12 and 6.3.17 to 6.3.19), as far as they are pure: which sources a
//! request is about, what each is sent, and how the answers become one.

mod answer;
mod ask;
mod downgrade;
mod merge;
mod part;
mod specification;

pub use answer::{ANSWER_ENTITIES_MAX, from_source, one_from_source};
pub use ask::{Ask, ask, types_text};
pub use downgrade::downgraded;
pub use merge::merge;
pub use part::{command_left, command_names, command_part, part_of};
pub use specification::{SourceFilter, selection, specification};
