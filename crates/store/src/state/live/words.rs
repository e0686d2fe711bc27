//! The words of names: what full-text search finds entities by.
//!
//! A word is a run of letters and digits in lower case. Scripts that write no spaces between words (Han, kana, Hangul, Thai, ...) give each
//! character and each pair of neighbours, so that 古城 is found in 北京古城公园.

use entity::{Attribute, AttributeValue, Entity, Iri, Value};

/// Local names of the attributes whose texts are searched.
const NAME_ATTRIBUTES: [&str; 6] = ["name", "alternateName", "title", "description", "label", "headline"];

/// Words of one entity that are found; a name has a few, a description some hundreds.
pub(crate) const WORDS_MAX: usize = 256;

/// The longest word, in bytes; what is longer is cut.
const WORD_BYTES_MAX: usize = 64;

/// The distinct words of a text, sorted.
pub(crate) fn words_of(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    each_word(text, &mut |word| words.push(word.to_owned()));
    words.truncate(WORDS_MAX);
    words.sort_unstable();
    words.dedup();
    words
}

/// The distinct words by which an entity is found, sorted.
pub(super) fn words_of_entity(entity: &Entity) -> Vec<String> {
    let mut words = Vec::new();
    each_word_of_entity(entity, &mut |word| words.push(word.to_owned()));
    words.sort_unstable();
    words.dedup();
    words
}

/// Calls `take` with the words by which an entity is found, some perhaps twice: of all instances of the attributes with names for people.
pub(super) fn each_word_of_entity(entity: &Entity, take: &mut dyn FnMut(&str)) {
    let mut n = 0;
    let mut bounded = |word: &str| {
        n += 1;
        if n <= WORDS_MAX {
            take(word);
        }
    };
    for instance in entity.attributes.iter().filter(|(name, _)| is_name(name)).flat_map(|(_, instances)| instances) {
        each_word_of_instance(instance, &mut bounded);
    }
}

/// Is an attribute of this name searched?
pub(super) fn is_name(name: &Iri) -> bool {
    // Most are not, and the end of the name tells.
    NAME_ATTRIBUTES.iter().any(|n| name.as_str().ends_with(n)) && NAME_ATTRIBUTES.contains(&name.local_name())
}

/// Calls `take` with the words of one instance of a name, some perhaps twice.
pub(super) fn each_word_of_instance(instance: &Attribute, take: &mut dyn FnMut(&str)) {
    match &instance.value {
        AttributeValue::Property(v) => of_value(v, take),
        AttributeValue::Language(texts) => texts.values().for_each(|v| of_value(v, take)),
        AttributeValue::List(list) => list.iter().for_each(|v| of_value(v, take)),
        _ => {}
    }
}

fn of_value(value: &Value, take: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => each_word(text, take),
        Value::Array(list) => list.iter().for_each(|v| of_value(v, take)),
        // A typed value stands for its value.
        Value::Object(members) => members.get("@value").into_iter().for_each(|v| of_value(v, take)),
        _ => {}
    }
}

/// Calls `take` with the words of a text, some perhaps twice.
pub(super) fn each_word(text: &str, take: &mut dyn FnMut(&str)) {
    if text.is_ascii() {
        return each_ascii_word(text, take);
    }
    let mut run = String::new();
    let mut pair = String::new();
    let mut previous: Option<char> = None;
    for c in text.chars().flat_map(char::to_lowercase) {
        let is_dense = writes_no_spaces(c);
        if is_dense || !c.is_alphanumeric() {
            if !run.is_empty() {
                take(&run);
                run.clear();
            }
        } else if run.len() + c.len_utf8() <= WORD_BYTES_MAX {
            run.push(c);
        }
        if is_dense {
            take(c.encode_utf8(&mut [0; 4]));
            if let Some(p) = previous {
                pair.clear();
                pair.extend([p, c]);
                take(&pair);
            }
        }
        previous = is_dense.then_some(c);
    }
    if !run.is_empty() {
        take(&run);
    }
}

/// The same for what most names are.
fn each_ascii_word(text: &str, take: &mut dyn FnMut(&str)) {
    for run in text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|run| !run.is_empty()) {
        let run = &run[..run.len().min(WORD_BYTES_MAX)];
        let mut lower = [0; WORD_BYTES_MAX];
        let lower = &mut lower[..run.len()];
        lower.copy_from_slice(run.as_bytes());
        lower.make_ascii_lowercase();
        take(std::str::from_utf8(lower).expect("ASCII is UTF-8"));
    }
}

fn writes_no_spaces(c: char) -> bool {
    matches!(u32::from(c),
        0x0E00..=0x0EFF | 0x1000..=0x109F | 0x1780..=0x17FF // Thai, Lao, Burmese, Khmer
        | 0x3005..=0x3007 | 0x3040..=0x30FF | 0x31F0..=0x31FF // iteration marks, kana
        | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF | 0x20000..=0x3FFFF // Han
        | 0xAC00..=0xD7AF) // Hangul
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_runs_in_lower_case_and_pairs_of_dense_characters() {
        check("Air-Quality Station №7", &["7", "air", "quality", "station"]);
        check("北京古城", &["京", "京古", "北", "北京", "古", "古城", "城"]);
        check("  ", &[]);
        check("ÉCOLE école", &["école"]);
        check("A1路", &["a1", "路"]);
        check(&format!("x{}y Z", "A".repeat(100)), &["z", &format!("x{}", "a".repeat(WORD_BYTES_MAX - 1))]);
        check(&format!("x{}y é", "A".repeat(100)), &["é", &format!("x{}", "a".repeat(WORD_BYTES_MAX - 1))]);

        #[track_caller]
        fn check(text: &str, want: &[&str]) {
            let mut want: Vec<_> = want.iter().map(ToString::to_string).collect();
            want.sort();
            assert_eq!(words_of(text), want);
        }
    }

    #[test]
    fn only_names_are_searched_and_words_are_bounded() {
        let iri = |n: &str| Iri::known(&format!("https://example.org/{n}"));
        let mut e = Entity::new(iri("x"), iri("T"));
        e.put(iri("name"), Attribute::property("Old Town"));
        e.put(iri("colour"), Attribute::property("green"));
        assert_eq!(words_of_entity(&e), ["old", "town"]);
        let long: Vec<String> = (0..WORDS_MAX + 50).map(|i| format!("w{i}")).collect();
        e.put(iri("description"), Attribute::property(long.join(" ")));
        assert_eq!(words_of_entity(&e).len(), WORDS_MAX);
        assert!(words_of(&"x".repeat(1000))[0].len() <= WORD_BYTES_MAX);
    }
}
