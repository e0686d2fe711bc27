//! What entities are made of in memory: shared where nothing changed, small where nothing is.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Attribute, Attributes, Iri};

/// The instances of one attribute, one per `datasetId`. Cloning shares them until one of the copies is changed: two states of an entity
/// have in common what did not change between them.
#[derive(Clone, Debug)]
pub struct Instances(Arc<[Attribute]>);

impl Instances {
    /// Adds an instance at the end.
    pub fn push(&mut self, attribute: Attribute) {
        if self.0.is_empty() {
            self.0 = Arc::new([attribute]);
        } else {
            self.0 = self.0.iter().cloned().chain([attribute]).collect();
        }
    }

    /// Keeps those that satisfy `keep`.
    pub fn retain(&mut self, keep: impl FnMut(&&Attribute) -> bool) {
        let kept: Vec<Attribute> = self.0.iter().filter(keep).cloned().collect();
        if kept.len() < self.0.len() {
            self.0 = kept.into();
        }
    }

    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[Attribute] {
        &self.0
    }

    /// The same instances, known without looking at them.
    #[must_use]
    pub fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The instance with this `datasetId`, for changing it.
    pub(crate) fn instance_mut(&mut self, dataset_id: Option<&Iri>) -> Option<&mut Attribute> {
        let at = self.0.iter().position(|a| a.dataset_id.as_ref() == dataset_id)?;
        self.get_mut(at)
    }
}

impl Default for Instances {
    fn default() -> Self {
        // All that are empty share one allocation.
        static EMPTY: LazyLock<Instances> = LazyLock::new(|| Instances(Arc::new([])));
        EMPTY.clone()
    }
}

impl Deref for Instances {
    type Target = [Attribute];

    fn deref(&self) -> &[Attribute] {
        &self.0
    }
}

impl DerefMut for Instances {
    fn deref_mut(&mut self) -> &mut [Attribute] {
        Arc::make_mut(&mut self.0)
    }
}

impl PartialEq for Instances {
    fn eq(&self, other: &Self) -> bool {
        self.is_shared_with(other) || self.0 == other.0
    }
}

impl PartialEq<Vec<Attribute>> for Instances {
    fn eq(&self, other: &Vec<Attribute>) -> bool {
        *self.0 == **other
    }
}

impl From<Attribute> for Instances {
    fn from(attribute: Attribute) -> Self {
        Self(Arc::new([attribute]))
    }
}

impl From<Vec<Attribute>> for Instances {
    fn from(list: Vec<Attribute>) -> Self {
        Self(list.into())
    }
}

impl FromIterator<Attribute> for Instances {
    fn from_iter<I: IntoIterator<Item = Attribute>>(list: I) -> Self {
        Self(list.into_iter().collect())
    }
}

impl IntoIterator for Instances {
    type Item = Attribute;
    type IntoIter = IntoInstances;

    fn into_iter(self) -> IntoInstances {
        IntoInstances { of: self, at: 0 }
    }
}

/// The instances of one attribute, one by one; none is copied if nobody else has them.
#[derive(Debug)]
pub struct IntoInstances {
    of: Instances,
    at: usize,
}

impl Iterator for IntoInstances {
    type Item = Attribute;

    fn next(&mut self) -> Option<Attribute> {
        let at = self.at;
        self.at += 1;
        match Arc::get_mut(&mut self.of.0) {
            Some(own) => own.get_mut(at).map(|a| std::mem::replace(a, Attribute::hollow())),
            None => self.of.0.get(at).cloned(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let n = self.of.0.len().saturating_sub(self.at);
        (n, Some(n))
    }
}

impl ExactSizeIterator for IntoInstances {}

impl<'a> IntoIterator for &'a Instances {
    type Item = &'a Attribute;
    type IntoIter = std::slice::Iter<'a, Attribute>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
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
        self.0.serialize(to)
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
    pub fn each_mut(&mut self) -> impl Iterator<Item = &mut Attribute> {
        self.0.iter_mut().flat_map(|all| all.values_mut().flatten())
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
        let shared: Vec<_> = c.into_iter().collect();
        assert_eq!(a, shared);
        assert_eq!(a.into_iter().collect::<Vec<_>>(), shared);
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
        assert_eq!(a.instance_mut(Some(&Iri::known("urn:d:2"))), Some(&mut of(2, Some("urn:d:2"))));
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
