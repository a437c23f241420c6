//! What counts as the same as a label.

use super::*;

fn classes() -> Vec<String> {
    vec!["cat".into(), String::new(), "7".into()]
}

#[test]
fn an_answer_is_held_against_what_kind_of_label_there_is() {
    let text = |text: &str| Label::Text(text.into());
    let cases = [
        (Said::Class(0), text("cat"), Some(true)),
        (Said::Class(1), text("cat"), Some(false)),
        // Tables have numbers as texts: they are taken as numbers where they are no names.
        (Said::Class(0), text("0.0"), Some(true)),
        (Said::Class(2), text("7.0"), Some(true)),
        (Said::Class(2), text("2"), Some(false)),
        (Said::Class(1), text("1"), Some(true)),
        (Said::Class(0), Label::Number(0.0), Some(true)),
        // Its name is the number that is meant, not its place.
        (Said::Class(2), Label::Number(7.0), Some(true)),
        (Said::Class(2), Label::Number(2.0), Some(false)),
        (Said::Text("a".into()), text("a"), Some(true)),
        (Said::Text("2".into()), Label::Number(2.0), Some(true)),
        (Said::Whole(3), Label::Number(3.0), Some(true)),
        (Said::Whole(3), text("4"), Some(false)),
        (Said::Number(2.5), text("2.5"), Some(true)),
        (Said::Number(2.5), Label::Number(2.5), None),
        (Said::Nothing, text("cat"), Some(false)),
    ];
    for (said, label, expected) in cases {
        assert_eq!(said.is(&label, &classes()), expected, "{said:?} {label:?}");
    }
}

#[test]
fn a_number_that_names_a_class_is_told_apart_by_the_name_of_the_class() {
    let named = [0.0, 1.0, 2.0, 7.0, 0.5, -1.0].map(|number| class_name(number, &classes()));
    assert_eq!(named, ["cat", "1", "2", "7", "0.5", "-1"]);
}

#[test]
fn what_an_item_was_answered_is_its_value_or_the_place_of_the_largest() {
    let floats = |shape: Vec<usize>, values: &[f32]| {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::new(DataType::Fp32, shape, data.into()).unwrap()
    };
    let scores = floats(vec![2, 3], &[0.1, 0.9, 0.9, f32::NAN, 1.0, 2.0]);
    assert_eq!(answers(&scores, 2), [Said::Class(1), Said::Nothing]);
    assert_eq!(
        answers(&floats(vec![2, 1], &[1.5, -2.0]), 2),
        [Said::Number(1.5), Said::Number(-2.0)]
    );
    let whole = Tensor::new(DataType::Uint8, vec![2], vec![3, 4].into()).unwrap();
    assert_eq!(answers(&whole, 2), [Said::Whole(3), Said::Whole(4)]);
    let texts = Tensor::from_strings(vec![1], &["spam"]).unwrap();
    assert_eq!(answers(&texts, 1), [Said::Text("spam".into())]);
    assert_eq!(answers(&floats(vec![0, 3], &[]), 0), []);
}

#[test]
fn labels_without_number_are_one_beyond_the_first() {
    let mut map = BTreeMap::<String, u64>::new();
    (0..1000).for_each(|key| *bounded(&mut map, key.to_string()) += 1);
    assert_eq!(map.len(), MOST + 1);
    assert_eq!(map[OTHERS], 1000 - MOST as u64);
}
