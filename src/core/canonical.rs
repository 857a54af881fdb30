//! Canonical JSON, strictly: what a client sends becomes an event only if every server reads the same from it.
//!
//! <https://spec.matrix.org/v1.19/appendices/#canonical-json>

use std::{collections::btree_map, fmt};

use ruma::{CanonicalJsonObject, CanonicalJsonValue, Int};
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};

use crate::{Error, Result, limits::MAX_CONTENT_DEPTH};

/// Parses an object. Refuses what other servers would refuse or read in another way: numbers that are no integers or lie
/// beyond 2^53 - 1, a key twice in one object, half a surrogate pair, and too many levels.
pub fn parse_object(json: &str) -> Result<CanonicalJsonObject> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let value = Value { levels_left: MAX_CONTENT_DEPTH }.deserialize(&mut deserializer);
    let value = value.and_then(|value| deserializer.end().map(|()| value));
    match value {
        Ok(CanonicalJsonValue::Object(object)) => Ok(object),
        Ok(_) => Err(Error::bad_json("An object is expected")),
        Err(e) => Err(Error::bad_json(format!("Not canonical JSON: {e}"))),
    }
}

#[derive(Clone, Copy)]
struct Value {
    levels_left: usize,
}

impl Value {
    fn inner<E: de::Error>(self) -> Result<Self, E> {
        let levels_left = self.levels_left.checked_sub(1).ok_or_else(|| E::custom("too many levels"))?;
        Ok(Self { levels_left })
    }
}

impl<'de> DeserializeSeed<'de> for Value {
    type Value = CanonicalJsonValue;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<CanonicalJsonValue, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = CanonicalJsonValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of canonical JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<CanonicalJsonValue, E> {
        Ok(CanonicalJsonValue::Null)
    }

    fn visit_bool<E: de::Error>(self, v: bool) -> Result<CanonicalJsonValue, E> {
        Ok(CanonicalJsonValue::Bool(v))
    }

    fn visit_i64<E: de::Error>(self, v: i64) -> Result<CanonicalJsonValue, E> {
        Int::try_from(v).map(CanonicalJsonValue::Integer).map_err(|_| E::custom("an integer beyond 2^53 - 1"))
    }

    fn visit_u64<E: de::Error>(self, v: u64) -> Result<CanonicalJsonValue, E> {
        Int::try_from(v).map(CanonicalJsonValue::Integer).map_err(|_| E::custom("an integer beyond 2^53 - 1"))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<CanonicalJsonValue, E> {
        Err(E::custom("a number that is not an integer"))
    }

    fn visit_str<E: de::Error>(self, v: &str) -> Result<CanonicalJsonValue, E> {
        Ok(CanonicalJsonValue::String(v.to_owned()))
    }

    fn visit_string<E: de::Error>(self, v: String) -> Result<CanonicalJsonValue, E> {
        Ok(CanonicalJsonValue::String(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<CanonicalJsonValue, A::Error> {
        let inner = self.inner()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(CanonicalJsonValue::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<CanonicalJsonValue, A::Error> {
        let inner = self.inner()?;
        let mut object = CanonicalJsonObject::new();
        while let Some(key) = map.next_key::<String>()? {
            match object.entry(key) {
                btree_map::Entry::Vacant(place) => {
                    place.insert(map.next_value_seed(inner)?);
                }
                btree_map::Entry::Occupied(_) => return Err(de::Error::custom("a key twice in one object")),
            }
        }
        Ok(CanonicalJsonValue::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn canonical(json: &str) -> Result<String> {
        parse_object(json).map(|o| serde_json::to_string(&o).expect("json"))
    }

    #[test]
    fn the_examples_of_the_specification() {
        for (given, expected) in [
            ("{}", "{}"),
            (r#"{ "one": 1, "two": "Two" }"#, r#"{"one":1,"two":"Two"}"#),
            (r#"{ "b": "2", "a": "1" }"#, r#"{"a":"1","b":"2"}"#),
            (r#"{"a": "日本語"}"#, r#"{"a":"日本語"}"#),
            (r#"{ "本": 2, "日": 1 }"#, r#"{"日":1,"本":2}"#),
            (r#"{"a": "\u65E5"}"#, r#"{"a":"日"}"#),
            (r#"{"a": null}"#, r#"{"a":null}"#),
            (r#"{"a": -9007199254740991, "b": 9007199254740991}"#, r#"{"a":-9007199254740991,"b":9007199254740991}"#),
            ("{\"a\": \"\\u0000\\u001F\\u007f\\n\\/\"}", "{\"a\":\"\\u0000\\u001f\u{7f}\\n/\"}"),
        ] {
            assert_eq!(canonical(given).expect(given), expected);
        }
    }

    #[test]
    fn refused() {
        for given in [
            "",
            "[]",
            "1",
            "null",
            "{} {}",
            r#"{"a":1.5}"#,
            r#"{"a":1.0}"#,
            r#"{"a":1e3}"#,
            r#"{"a":1e999}"#,
            r#"{"a":-0}"#,
            r#"{"a":9007199254740992}"#,
            r#"{"a":-9007199254740992}"#,
            r#"{"a":18446744073709551616}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"b":[{"a":1,"\u0061":1}]}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":NaN}"#,
        ] {
            match canonical(given) {
                Err(Error::Matrix { kind: Kind::BadJson, .. }) => {}
                other => panic!("{given}: {other:?}"),
            }
        }
    }

    #[test]
    fn as_many_levels_as_allowed_and_no_more() {
        let nested = |levels: usize| format!("{}{}", r#"{"a":"#.repeat(levels - 1) + "{}", "}".repeat(levels - 1));
        assert_eq!(canonical(&nested(MAX_CONTENT_DEPTH)).expect("allowed"), nested(MAX_CONTENT_DEPTH));
        assert!(canonical(&nested(MAX_CONTENT_DEPTH + 1)).is_err());
        assert!(canonical(&nested(100_000)).is_err());
    }
}
