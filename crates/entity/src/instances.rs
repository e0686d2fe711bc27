//! What entities are made of in memory: shared where nothing changed, small where nothing is.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Attribute, Attributes, Iri};

/// The instances of one attribute, one per `datasetId`. Cloning shares them until one of the copies is changed: two states of an entity
/// have in common what did not change between them, and a change, the history and the state have in common what it brought.
#[derive(Clone, Debug, Default)]
pub struct Instances(Repr);

/// Nearly always one; that one is shared by itself.
#[derive(Clone, Debug, Default)]
enum Repr {
    #[default]
    None,
    One(Arc<Attribute>),
    Many(Arc<Vec<Attribute>>),
}

impl Instances {
    /// Adds an instance at the end.
    pub fn push(&mut self, attribute: impl Into<Arc<Attribute>>) {
        let attribute = attribute.into();
        self.0 = match std::mem::take(&mut self.0) {
            Repr::None => Repr::One(attribute),
            Repr::One(first) => Repr::Many(Arc::new(vec![Arc::unwrap_or_clone(first), Arc::unwrap_or_clone(attribute)])),
            Repr::Many(mut list) => {
                Arc::make_mut(&mut list).push(Arc::unwrap_or_clone(attribute));
                Repr::Many(list)
            }
        };
    }

    /// Adds an instance, or replaces the one with its `datasetId`.
    pub fn put(&mut self, attribute: impl Into<Arc<Attribute>>) {
        let attribute = attribute.into();
        match &mut self.0 {
            // Nearly always: what other states share with this one is left to them, not copied and overwritten.
            Repr::One(present) if present.dataset_id == attribute.dataset_id => *present = attribute,
            Repr::Many(list) => match list.iter().position(|a| a.dataset_id == attribute.dataset_id) {
                Some(at) => Arc::make_mut(list)[at] = Arc::unwrap_or_clone(attribute),
                None => Arc::make_mut(list).push(Arc::unwrap_or_clone(attribute)),
            },
            Repr::None | Repr::One(_) => self.push(attribute),
        }
    }

    /// Keeps those that satisfy `keep`.
    pub fn retain(&mut self, keep: impl FnMut(&&Attribute) -> bool) {
        let kept: Vec<Attribute> = self.iter().filter(keep).cloned().collect();
        if kept.len() < self.len() {
            *self = kept.into();
        }
    }

    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[Attribute] {
        match &self.0 {
            Repr::None => &[],
            Repr::One(one) => std::slice::from_ref(one),
            Repr::Many(list) => list,
        }
    }

    /// The same instances, known without looking at them.
    #[must_use]
    pub fn is_shared_with(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Repr::None, Repr::None) => true,
            (Repr::One(a), Repr::One(b)) => Arc::ptr_eq(a, b),
            (Repr::Many(a), Repr::Many(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Deref for Instances {
    type Target = [Attribute];

    fn deref(&self) -> &[Attribute] {
        self.as_slice()
    }
}

impl DerefMut for Instances {
    fn deref_mut(&mut self) -> &mut [Attribute] {
        match &mut self.0 {
            Repr::None => &mut [],
            Repr::One(one) => std::slice::from_mut(Arc::make_mut(one)),
            Repr::Many(list) => Arc::make_mut(list).as_mut_slice(),
        }
    }
}

impl PartialEq for Instances {
    fn eq(&self, other: &Self) -> bool {
        self.is_shared_with(other) || self.as_slice() == other.as_slice()
    }
}

impl PartialEq<Vec<Attribute>> for Instances {
    fn eq(&self, other: &Vec<Attribute>) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl From<Attribute> for Instances {
    fn from(attribute: Attribute) -> Self {
        Self(Repr::One(Arc::new(attribute)))
    }
}

impl From<Vec<Attribute>> for Instances {
    fn from(mut list: Vec<Attribute>) -> Self {
        Self(match list.len() {
            0 => Repr::None,
            1 => Repr::One(Arc::new(list.remove(0))),
            _ => Repr::Many(Arc::new(list)),
        })
    }
}

impl FromIterator<Attribute> for Instances {
    fn from_iter<I: IntoIterator<Item = Attribute>>(list: I) -> Self {
        list.into_iter().collect::<Vec<_>>().into()
    }
}

impl IntoIterator for Instances {
    type Item = Arc<Attribute>;
    type IntoIter = IntoInstances;

    fn into_iter(self) -> IntoInstances {
        IntoInstances(match self.0 {
            Repr::None => Left::One(None),
            Repr::One(one) => Left::One(Some(one)),
            Repr::Many(list) => Left::Many(Arc::unwrap_or_clone(list).into_iter()),
        })
    }
}

/// The instances of one attribute, one by one; none is copied if nobody else has them, nor is a single one.
#[derive(Debug)]
pub struct IntoInstances(Left);

#[derive(Debug)]
enum Left {
    One(Option<Arc<Attribute>>),
    Many(std::vec::IntoIter<Attribute>),
}

impl Iterator for IntoInstances {
    type Item = Arc<Attribute>;

    fn next(&mut self) -> Option<Arc<Attribute>> {
        match &mut self.0 {
            Left::One(one) => one.take(),
            Left::Many(list) => list.next().map(Arc::new),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            Left::One(one) => (usize::from(one.is_some()), Some(usize::from(one.is_some()))),
            Left::Many(list) => list.size_hint(),
        }
    }
}

impl ExactSizeIterator for IntoInstances {}

impl<'a> IntoIterator for &'a Instances {
    type Item = &'a Attribute;
    type IntoIter = std::slice::Iter<'a, Attribute>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> IntoIterator for &'a mut Instances {
    type Item = &'a mut Attribute;
    type IntoIter = std::slice::IterMut<'a, Attribute>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl Serialize for Instances {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.as_slice().serialize(to)
    }
}

impl<'de> Deserialize<'de> for Instances {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Vec::deserialize(from)?.into())
    }
}

/// Attributes of an attribute: nearly always none, which then take the room of a pointer.
#[derive(Clone, Default, Debug)]
pub struct SubAttributes(Option<Box<Attributes>>);

static NONE: LazyLock<Attributes> = LazyLock::new(Attributes::default);

impl SubAttributes {
    /// All of them, for changing them in place; nothing is allocated if there are none.
    pub fn each_mut(&mut self) -> impl Iterator<Item = (&Iri, &mut Attribute)> {
        self.0.iter_mut().flat_map(|all| all.iter_mut()).flat_map(|(name, instances)| instances.iter_mut().map(move |a| (name, a)))
    }
}

impl Deref for SubAttributes {
    type Target = Attributes;

    fn deref(&self) -> &Attributes {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl DerefMut for SubAttributes {
    fn deref_mut(&mut self) -> &mut Attributes {
        self.0.get_or_insert_default()
    }
}

impl PartialEq for SubAttributes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl From<Attributes> for SubAttributes {
    fn from(attributes: Attributes) -> Self {
        Self((!attributes.is_empty()).then(|| Box::new(attributes)))
    }
}

impl<I: Into<Instances>> FromIterator<(Iri, I)> for SubAttributes {
    fn from_iter<T: IntoIterator<Item = (Iri, I)>>(list: T) -> Self {
        list.into_iter().map(|(name, instances)| (name, instances.into())).collect::<Attributes>().into()
    }
}

impl<'a> IntoIterator for &'a SubAttributes {
    type Item = (&'a Iri, &'a Instances);
    type IntoIter = indexmap::map::Iter<'a, Iri, Instances>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Serialize for SubAttributes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(to)
    }
}

impl<'de> Deserialize<'de> for SubAttributes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Attributes::deserialize(from)?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(n: i32, dataset: Option<&str>) -> Attribute {
        Attribute { dataset_id: dataset.map(Iri::known), ..Attribute::property(n) }
    }

    #[test]
    fn copies_are_shared_until_one_is_changed() {
        let a: Instances = vec![of(1, None), of(2, Some("urn:d:2"))].into();
        let mut b = a.clone();
        assert!(a.is_shared_with(&b));
        b[0].value = crate::AttributeValue::Property(3.into());
        assert!(!a.is_shared_with(&b));
        assert_eq!((&a[0], &b[0]), (&of(1, None), &of(3, None)));
        assert_ne!(a, b);
        // Consumed while shared and alone, with the same result.
        let c = a.clone();
        let shared: Vec<_> = c.into_iter().map(Arc::unwrap_or_clone).collect();
        assert_eq!(a, shared);
        assert_eq!(a.into_iter().map(Arc::unwrap_or_clone).collect::<Vec<_>>(), shared);
    }

    #[test]
    fn pushing_and_retaining_leave_the_other_copies_alone() {
        let mut a = Instances::default();
        a.push(of(1, None));
        let one = a.clone();
        a.push(of(2, Some("urn:d:2")));
        assert_eq!((one.len(), a.len()), (1, 2));
        let two = a.clone();
        a.retain(|_| true);
        assert!(a.is_shared_with(&two));
        a.retain(|i| i.dataset_id.is_some());
        assert_eq!((a.len(), two.len()), (1, 2));
    }

    #[test]
    fn an_instance_is_put_where_its_dataset_is() {
        let mut all = Instances::default();
        for (n, dataset, want) in
            [(1, None, 1), (2, None, 1), (3, Some("urn:d:1"), 2), (4, Some("urn:d:2"), 3), (5, Some("urn:d:1"), 3), (6, None, 3)]
        {
            let before = all.clone();
            let attribute = Arc::new(of(n, dataset));
            all.put(Arc::clone(&attribute));
            assert_eq!(all.len(), want);
            assert!(all.contains(&attribute) && !before.contains(&attribute), "{n}");
        }
        assert_eq!(all, vec![of(6, None), of(5, Some("urn:d:1")), of(4, Some("urn:d:2"))]);
    }

    #[test]
    fn no_sub_attributes_take_no_room() {
        assert_eq!(size_of::<SubAttributes>(), size_of::<usize>());
        let mut none = SubAttributes::default();
        assert_eq!(none.each_mut().count(), 0);
        assert!(none.0.is_none() && none.is_empty());
        none.insert(Iri::known("urn:p:a"), of(1, None).into());
        assert_eq!(none.len(), 1);
        assert_eq!(serde_json::from_str::<SubAttributes>(&serde_json::to_string(&none).unwrap()).unwrap(), none);
    }
}
