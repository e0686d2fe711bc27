//! Short names without clashes.

use std::collections::HashSet;

use entity::Iri;

/// Gives each IRI its short name; when it is taken or reserved, the same with `_2`, `_3`, ...
///
/// `wanted` is in ascending order of IRI, so the smaller IRI keeps the plain name and the outcome does not depend on the order of arrival.
/// A suffixed name never takes the plain name of another.
pub(crate) fn assign(wanted: Vec<(Iri, String)>, reserved: &[&str]) -> Vec<(Iri, String)> {
    let plain: HashSet<String> = wanted.iter().map(|(_, short)| short.clone()).collect();
    let mut taken: HashSet<String> = reserved.iter().map(|&r| r.to_owned()).collect();
    let mut assigned = Vec::with_capacity(wanted.len());
    for (iri, short) in wanted {
        let name = if taken.insert(short.clone()) {
            short
        } else {
            let free = (2u32..).map(|n| format!("{short}_{n}")).find(|c| !plain.contains(c) && taken.insert(c.clone()));
            free.expect("fewer than u32::MAX names")
        };
        assigned.push((iri, name));
    }
    assigned
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn clashes_get_a_suffix_in_the_order_of_their_iris() {
        check(&["a", "b"], &["a", "b"]);
        check(&["a", "a", "a"], &["a", "a_2", "a_3"]);
        check(&["id", "id"], &["id_2", "id_3"]);
        // The second `a` must not become the `a_2` that somebody is really called.
        check(&["a", "a", "a_2"], &["a", "a_3", "a_2"]);

        #[track_caller]
        fn check(shorts: &[&str], want: &[&str]) {
            let wanted = shorts.iter().enumerate().map(|(i, s)| (Iri::known(&format!("urn:{i}")), (*s).to_owned())).collect();
            let got: Vec<String> = assign(wanted, &["id"]).into_iter().map(|(_, name)| name).collect();
            assert_eq!(got, want, "{shorts:?}");
        }
    }

    proptest! {
        #[test]
        fn names_are_unique_and_never_reserved(shorts in proptest::collection::vec("(a|b|id|a_2|a_3|id_2)", 0..12)) {
            let wanted = shorts.iter().enumerate().map(|(i, s)| (Iri::known(&format!("urn:{i}")), s.clone())).collect();
            let names: Vec<String> = assign(wanted, &["id"]).into_iter().map(|(_, name)| name).collect();
            let distinct: HashSet<&String> = names.iter().collect();
            prop_assert_eq!(distinct.len(), shorts.len());
            prop_assert!(!names.iter().any(|n| n == "id"));
        }
    }
}
