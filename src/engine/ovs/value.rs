//! OVSDB's notation for values in JSON (RFC 7047 §5.1): atoms, sets, maps, UUIDs.
//!
//! A set of one element arrives as the bare element, an empty one as `["set",[]]`; sending `[]` for
//! a set is an error. So sets are always written in full, and read in both spellings.

use serde_json::{Value, json};

use pve_span_core::state::RowId;

/// Reads a set: `["set",[…]]` or the bare element.
pub fn set(value: &Value) -> &[Value] {
    match value.as_array().map(Vec::as_slice) {
        Some([Value::String(tag), Value::Array(items)]) if tag == "set" => items,
        _ => std::slice::from_ref(value),
    }
}

/// Reads an optional value: a set of at most one.
pub fn optional(value: &Value) -> Option<&Value> {
    set(value).first()
}

/// Reads `["uuid","…"]`.
pub fn row_id(value: &Value) -> Option<RowId> {
    match value.as_array()?.as_slice() {
        [Value::String(tag), Value::String(id)] if tag == "uuid" => Some(RowId(id.clone())),
        _ => None,
    }
}

/// Reads one key of `["map",[[key,value],…]]`.
pub fn map_get<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    let [Value::String(tag), Value::Array(pairs)] = value.as_array()?.as_slice() else {
        return None;
    };
    let pair = pairs
        .iter()
        .filter(|_| tag == "map")
        .find(|pair| pair.get(0).and_then(Value::as_str) == Some(key))?;
    pair.get(1)
}

/// Reads a non-negative integer.
pub fn number<T: TryFrom<u64>>(value: &Value) -> Option<T> {
    value.as_u64().and_then(|number| T::try_from(number).ok())
}

/// Writes a set.
pub fn to_set(items: impl IntoIterator<Item = Value>) -> Value {
    json!(["set", items.into_iter().collect::<Vec<_>>()])
}

/// Writes a set of none or one.
pub fn to_optional(item: Option<Value>) -> Value {
    to_set(item)
}

/// Writes `["uuid","…"]`.
pub fn to_uuid(row: &RowId) -> Value {
    json!(["uuid", row.0])
}

/// Writes a map of strings.
pub fn to_map(pairs: &[(&str, &str)]) -> Value {
    json!(["map", pairs])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_in_both_spellings() {
        assert_eq!(set(&json!(["set", [1, 2]])), [json!(1), json!(2)]);
        assert_eq!(set(&json!(["set", []])), [] as [Value; 0]);
        assert_eq!(set(&json!(7)), [json!(7)]);
        let one = json!(["uuid", "a"]);
        assert_eq!(set(&one), std::slice::from_ref(&one));
        assert_eq!(optional(&json!(["set", []])), None);
    }

    #[test]
    fn sets_are_written_in_full() {
        assert_eq!(to_set([]), json!(["set", []]));
        assert_eq!(to_optional(Some(json!(10))), json!(["set", [10]]));
        assert_eq!(to_map(&[("a", "b")]), json!(["map", [["a", "b"]]]));
    }

    #[test]
    fn maps_give_up_their_keys() {
        let map = json!(["map", [["tx_bytes", 7], ["tx_packets", 1]]]);
        assert_eq!(map_get(&map, "tx_packets").and_then(number::<u64>), Some(1));
        assert_eq!(map_get(&map, "none"), None);
        assert_eq!(map_get(&json!(["map"]), "none"), None);
        assert_eq!(number::<u16>(&json!(70000)), None);
    }
}
