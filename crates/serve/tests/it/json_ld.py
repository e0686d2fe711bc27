"""Expands and compacts NGSI-LD entities with a full JSON-LD processor.

Reads {"contexts": {url: document}, "core": url, "entities": [entity, ...]} from standard input and writes one line for each entity:
{"types", "attributes", "names"}: expanded types, expanded attributes in the form that the test compares, and the names after compaction.
"""
import json
import sys

from pyld import jsonld

NS = "https://uri.etsi.org/ngsi-ld/"
SYSTEM = {NS + name for name in ("createdAt", "modifiedAt", "deletedAt", "scope", "expiresAt")}
VALUES = {
    "Property": "hasValue",
    "GeoProperty": "hasValue",
    "Relationship": "hasObject",
    "LanguageProperty": "hasLanguageMap",
    "VocabProperty": "hasVocab",
    "JsonProperty": "hasJSON",
    "ListProperty": "hasValueList",
    "ListRelationship": "hasObjectList",
}
MEMBERS = {"unitCode": "@value", "observedAt": "@value", "datasetId": "@id", "hasObjectType": "@id", "hasValueType": "@id"}


def scalars(items):
    """The values of a set or list; None if one of them is a node."""
    return [item["@value"] for item in items] if all("@value" in item for item in items) else None


def value_of(kind, items):
    if kind == "Property":
        return scalars(items)
    if kind == "GeoProperty":
        return None
    if kind in ("Relationship", "VocabProperty"):
        return [item["@id"] for item in items]
    if kind == "LanguageProperty":
        return sorted([item.get("@language", "@none"), item["@value"]] for item in items)
    if kind == "JsonProperty":
        return items[0]["@value"]
    if kind == "ListProperty":
        return scalars(items[0]["@list"])
    return [item[NS + "hasObject"][0]["@id"] for item in items[0]["@list"]]


def instance(node):
    kind = node["@type"][0].removeprefix(NS)
    own = NS + VALUES[kind]
    found = {"kind": kind, "value": value_of(kind, node.get(own, [])), "sub": {}}
    for key, items in node.items():
        if key in ("@type", own) or key in SYSTEM:
            continue
        if key.removeprefix(NS) in MEMBERS:
            name = key.removeprefix(NS)
            found[name] = [item[MEMBERS[name]] for item in items]
        else:
            found["sub"][key] = instances(items)
    return found


def instances(items):
    return sorted((instance(item) for item in items), key=lambda i: json.dumps(i.get("datasetId", "")))


def without_coercion(context):
    """NGSI-LD ignores @type and @container of a user's terms (annex C.6): the names are those of the same context without them."""
    if isinstance(context, list):
        return [without_coercion(part) for part in context]
    if not isinstance(context, dict):
        return context
    plain = {}
    for term, meaning in context.items():
        if isinstance(meaning, dict) and not term.startswith("@"):
            meaning = {key: value for key, value in meaning.items() if key in ("@id", "@prefix")} or None
        if meaning is not None or term.startswith("@"):
            plain[term] = meaning
    return plain


def main():
    given = json.load(sys.stdin)
    contexts = given["contexts"]

    def load(url, _options):
        return {"contextUrl": None, "documentUrl": url, "document": contexts[url]}

    jsonld.set_document_loader(load)
    core = contexts[given["core"]]["@context"]
    for entity in given["entities"]:
        user = entity.pop("@context")
        parts = [part for part in (user if isinstance(user, list) else [user]) if "ngsi-ld-core-context" not in str(part)]
        parts = [without_coercion(contexts[part]["@context"] if isinstance(part, str) else part) for part in parts]
        try:
            expanded = jsonld.expand({**entity, "@context": parts + [core]})[0]
            # Clients cannot set these: they are passed over.
            expanded = {key: items for key, items in expanded.items() if key not in SYSTEM}
            compact = jsonld.compact(expanded, parts + [core])
            attributes = {key: instances(items) for key, items in expanded.items() if not key.startswith("@")}
            answer = {
                "types": expanded["@type"],
                "attributes": attributes,
                "names": sorted(key for key in compact if key != "@context"),
            }
        except Exception as e:  # told to the test, which decides
            answer = {"error": str(getattr(e, "code", e))}
        print(json.dumps(answer), flush=True)


main()
