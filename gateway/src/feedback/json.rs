//! Feedback as JSON.

use serde_json::{Map, Value};

use super::told::{Given, Told, Wrong};
use super::{MOST, MOST_WRONG};

/// Longest name of a field that is repeated to whoever sent it.
const SHOWN: usize = 80;

/// Reads one feedback; `index` is its place, for what is wrong with it.
///
/// # Errors
/// All that has the wrong type, and every field that there is not.
pub fn from_json(index: usize, value: Value) -> Result<Told, Vec<Wrong>> {
    let Value::Object(fields) = value else {
        return Err(vec![Wrong::new(index, "", "is not an object")]);
    };
    let mut told = Told::default();
    let mut wrong = vec![];
    for (name, value) in fields {
        if let Err(text) = set(&mut told, &name, value) {
            let name: String = name.chars().take(SHOWN).collect();
            wrong.push(Wrong::new(index, &name, text));
            if wrong.len() >= MOST_WRONG {
                break;
            }
        }
    }
    if wrong.is_empty() { Ok(told) } else { Err(wrong) }
}

/// Sets a field; null is as if it were not there.
fn set(told: &mut Told, name: &str, value: Value) -> Result<(), &'static str> {
    let place = match name {
        "prediction_id" => &mut told.prediction_id,
        "caller_id" => &mut told.caller_id,
        "event_time" => &mut told.event_time,
        "id" => &mut told.id,
        "source" => &mut told.source,
        "note" => &mut told.note,
        _ => return set_other(told, name, value),
    };
    *place = match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        _ => return Err("must be text"),
    };
    Ok(())
}

fn set_other(told: &mut Told, name: &str, value: Value) -> Result<(), &'static str> {
    match (name, value) {
        ("item" | "label" | "reward", Value::Null) => {}
        ("item", value) => told.item = Some(value.as_i64().ok_or("must be a whole number")?),
        ("reward", value) => told.reward = Some(value.as_f64().ok_or("must be a number")?),
        ("label", Value::String(text)) => told.label = Some(Given::Text(text)),
        ("label", Value::Bool(flag)) => told.label = Some(Given::Flag(flag)),
        ("label", Value::Number(number)) => told.label = number.as_f64().map(Given::Number),
        ("label", _) => return Err("must be text, a number, true or false"),
        _ => return Err("there is no such field"),
    }
    Ok(())
}

/// All feedback of a body: one object, or several under `feedback`.
///
/// # Errors
/// All that is wrong, with its place.
pub fn from_body(body: Value) -> Result<Vec<Told>, Vec<Wrong>> {
    let several = match body {
        Value::Object(mut fields) if fields.contains_key("feedback") => {
            let several = fields.remove("feedback");
            if let Some((name, _)) = Map::into_iter(fields).next() {
                let name: String = name.chars().take(SHOWN).collect();
                let text = format!("'{name}' does not stand beside a list of feedback");
                return Err(vec![Wrong::new(0, "", text)]);
            }
            match several {
                Some(Value::Array(several)) => several,
                _ => return Err(vec![Wrong::new(0, "", "'feedback' must be a list")]),
            }
        }
        one => vec![one],
    };
    if several.len() > MOST {
        let text = format!("more than {MOST} in one request: send them in parts");
        return Err(vec![Wrong::new(MOST, "", text)]);
    }
    let mut all = Vec::with_capacity(several.len());
    let mut wrong = vec![];
    for (index, value) in several.into_iter().enumerate() {
        match from_json(index, value) {
            Ok(told) => all.push(told),
            Err(found) => wrong.extend(found),
        }
        if wrong.len() >= MOST_WRONG {
            break;
        }
    }
    wrong.truncate(MOST_WRONG);
    if wrong.is_empty() { Ok(all) } else { Err(wrong) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_or_several_are_read_with_labels_of_each_kind() {
        let one = json!({"prediction_id": "p", "label": "cat", "item": 2, "note": null});
        let told = from_body(one).unwrap();
        let expected = Told {
            prediction_id: Some("p".into()),
            item: Some(2),
            label: Some(Given::Text("cat".into())),
            ..Told::default()
        };
        assert_eq!(told, [expected]);
        let several = json!({"feedback": [{"caller_id": "c", "label": 2.5}, {"label": true,
            "reward": -1, "event_time": "t", "id": "i", "source": "s"}]});
        let told = from_body(several).unwrap();
        assert_eq!(told[0].label, Some(Given::Number(2.5)));
        assert_eq!((told[1].label.clone(), told[1].reward), (Some(Given::Flag(true)), Some(-1.0)));
        assert_eq!(from_body(json!({"feedback": []})).unwrap(), []);
    }

    #[test]
    fn every_wrong_field_is_named_with_its_place() {
        let several = json!({"feedback": [
            {"prediction_id": 7, "lable": "cat"}, {"item": 0.5, "label": []}, 5, {"reward": "1"},
        ]});
        let wrong = from_body(several).unwrap_err();
        let texts: Vec<_> = wrong.iter().map(ToString::to_string).collect();
        for expected in [
            "feedback[0].prediction_id: must be text",
            "feedback[0].lable: there is no such field",
            "feedback[1].item: must be a whole number",
            "feedback[1].label: must be text, a number, true or false",
            "feedback[2]: is not an object",
            "feedback[3].reward: must be a number",
        ] {
            assert!(texts.iter().any(|text| text == expected), "{expected}: {texts:?}");
        }
        let beside = from_body(json!({"feedback": [], "source": "s"})).unwrap_err();
        assert!(beside[0].text.contains("'source'"));
        let many = from_body(json!({"feedback": vec![0; MOST + 1]})).unwrap_err();
        assert_eq!((many.len(), many[0].index), (1, MOST));
        let wrong = from_body(json!({"feedback": vec![0; MOST]})).unwrap_err();
        assert_eq!(wrong.len(), MOST_WRONG);
        assert!(from_body(json!({"feedback": 7})).is_err() && from_body(json!([])).is_err());
    }
}
