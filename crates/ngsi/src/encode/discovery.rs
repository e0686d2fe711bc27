//! Which types and attributes there are (ETSI GS CIM 009 V1.9.1, clauses 4.5.10 to 4.5.15 and 5.7.5 to 5.7.10).

use entity::Iri;

use super::writer::Writer;
use crate::context::Context;

/// What is known of an entity type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeInfo {
    /// The type.
    pub entity_type: Iri,
    /// How many entities have it.
    pub n_entities: usize,
    /// Their attributes, each with the kinds that occur.
    pub attributes: Vec<(Iri, Vec<&'static str>)>,
}

/// What is known of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeInfo {
    /// The attribute.
    pub name: Iri,
    /// How many entities have it.
    pub n_entities: usize,
    /// The kinds that occur.
    pub kinds: Vec<&'static str>,
    /// The types of the entities that have it.
    pub types: Vec<Iri>,
}

fn names<'a>(w: &mut Writer<'_>, key: &str, list: impl IntoIterator<Item = &'a Iri>, context: &Context) {
    w.key(key);
    w.open(b'[');
    for name in list {
        w.string(&context.compact(name));
    }
    w.close(b']');
}

fn texts(w: &mut Writer<'_>, key: &str, list: &[&str]) {
    w.key(key);
    w.open(b'[');
    for text in list {
        w.string(text);
    }
    w.close(b']');
}

/// `EntityTypeList`. `id` is a URI for this very list, which the caller makes unique.
#[must_use]
pub fn type_list(id: &Iri, types: &[Iri], context: &Context) -> Vec<u8> {
    let mut out = Vec::new();
    let mut w = Writer::new(&mut out);
    w.open(b'{');
    w.member("id", id.as_str());
    w.member("type", "EntityTypeList");
    names(&mut w, "typeList", types, context);
    w.close(b'}');
    out
}

/// `AttributeList`. `id` as in [`type_list`].
#[must_use]
pub fn attribute_list(id: &Iri, attributes: &[Iri], context: &Context) -> Vec<u8> {
    let mut out = Vec::new();
    let mut w = Writer::new(&mut out);
    w.open(b'{');
    w.member("id", id.as_str());
    w.member("type", "AttributeList");
    names(&mut w, "attributeList", attributes, context);
    w.close(b'}');
    out
}

/// An array of `EntityType`: each type with the names of its attributes.
#[must_use]
pub fn types(list: &[TypeInfo], context: &Context) -> Vec<u8> {
    let mut out = Vec::new();
    let mut w = Writer::new(&mut out);
    w.open(b'[');
    for t in list {
        w.open(b'{');
        w.member("id", t.entity_type.as_str());
        w.member("type", "EntityType");
        w.member("typeName", &context.compact(&t.entity_type));
        names(&mut w, "attributeNames", t.attributes.iter().map(|(name, _)| name), context);
        w.close(b'}');
    }
    w.close(b']');
    out
}

/// `EntityTypeInfo`: one type with its count and the kinds of its attributes.
#[must_use]
pub fn type_info(t: &TypeInfo, context: &Context) -> Vec<u8> {
    let mut out = Vec::new();
    let mut w = Writer::new(&mut out);
    w.open(b'{');
    w.member("id", t.entity_type.as_str());
    w.member("type", "EntityTypeInfo");
    w.member("typeName", &context.compact(&t.entity_type));
    w.key("entityCount");
    w.number(t.n_entities);
    w.key("attributeDetails");
    w.open(b'[');
    for (name, kinds) in &t.attributes {
        w.open(b'{');
        w.member("id", name.as_str());
        w.member("type", "Attribute");
        w.member("attributeName", &context.compact(name));
        texts(&mut w, "attributeTypes", kinds);
        w.close(b'}');
    }
    w.close(b']');
    w.close(b'}');
    out
}

/// An array of `Attribute`: each with the types that have it.
#[must_use]
pub fn attributes(list: &[AttributeInfo], context: &Context) -> Vec<u8> {
    let mut out = Vec::new();
    let mut w = Writer::new(&mut out);
    w.open(b'[');
    for a in list {
        w.open(b'{');
        w.member("id", a.name.as_str());
        w.member("type", "Attribute");
        w.member("attributeName", &context.compact(&a.name));
        names(&mut w, "typeNames", &a.types, context);
        w.close(b'}');
    }
    w.close(b']');
    out
}

/// One `Attribute` with everything.
#[must_use]
pub fn attribute_info(a: &AttributeInfo, context: &Context) -> Vec<u8> {
    let mut out = Vec::new();
    let mut w = Writer::new(&mut out);
    w.open(b'{');
    w.member("id", a.name.as_str());
    w.member("type", "Attribute");
    w.member("attributeName", &context.compact(&a.name));
    w.key("attributeCount");
    w.number(a.n_entities);
    texts(&mut w, "attributeTypes", &a.kinds);
    names(&mut w, "typeNames", &a.types, context);
    w.close(b'}');
    out
}
