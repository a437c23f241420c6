//! What is left of values.

use proptest::prelude::*;

use super::*;

const SECRET: &str = "rosebud";

fn hasher() -> Hasher {
    Hasher::new(b"a key of sixteen bytes")
}

fn tensor_of(datatype: DataType, data: Vec<u8>) -> Tensor {
    let count = data.len() / datatype.size().unwrap();
    Tensor::new(datatype, vec![count], data.into()).unwrap()
}

fn left(plan: &Plan, given: &Tensor) -> Option<Vec<u8>> {
    tensor(plan, given, Some(&hasher())).map(Cow::into_owned)
}

fn strings(data: Vec<u8>, count: usize) -> Vec<String> {
    let all = Tensor::new(DataType::Bytes, vec![count], data.into()).unwrap();
    all.strings().map(|text| String::from_utf8(text.to_vec()).unwrap()).collect()
}

#[test]
fn hashes_are_those_of_rfc_4231() {
    let mut text = String::new();
    Hasher::new(b"Jefe").write(b"what do ya want for nothing?", &mut text);
    assert_eq!(text, "5bdcc146bf60754e6a042426089575c7");
    let mut long = String::new();
    Hasher::new(&[0xaa; 131])
        .write(b"Test Using Larger Than Block-Size Key - Hash Key First", &mut long);
    assert_eq!(long, "60e431591ee0b67f0d8a26aacbf5b77f");
}

#[test]
fn texts_are_left_as_rules_say() {
    let of = |how, value| {
        let mut out = String::from("before");
        let is_kept = text(Some(how), value, Some(&hasher()), &mut out);
        is_kept.then(|| out.trim_start_matches("before").to_owned())
    };
    assert_eq!(of(How::Drop, SECRET), None);
    assert_eq!(of(How::Truncate(3), "äöüß").as_deref(), Some("äöü"));
    assert_eq!(of(How::Bucket(10.0), "47.5").as_deref(), Some("40"));
    assert_eq!(of(How::Bucket(10.0), SECRET), None);
    let hash = of(How::Hash, SECRET).unwrap();
    assert_eq!((hash.len(), of(How::Hash, SECRET).unwrap() == hash), (32, true));
    assert_ne!(of(How::Hash, "rosebuds").unwrap(), hash);
    // Without a key there is nothing that would stand for it.
    assert!(!text(Some(How::Hash), SECRET, None, &mut String::new()));
}

#[test]
fn tensors_of_texts_are_changed_element_by_element() {
    let given = Tensor::from_strings(vec![2, 2], &["anna", SECRET, "ben", "x"]).unwrap();
    assert_eq!(left(&Plan::Whole(How::Drop), &given), None);
    let cut = left(&Plan::Whole(How::Truncate(2)), &given).unwrap();
    assert_eq!(strings(cut, 4), ["an", "ro", "be", "x"]);
    let one = left(&Plan::Scalars(vec![(1, How::Drop)], 2), &given).unwrap();
    assert_eq!(strings(one, 4), ["anna", "", "ben", ""]);
    let hashed = strings(left(&Plan::Whole(How::Hash), &given).unwrap(), 4);
    assert!(hashed.iter().all(|text| text.len() == 32));
    let binary = Tensor::from_strings(vec![1], &[[0xff, 0xfe]]).unwrap();
    assert_eq!(strings(left(&Plan::Whole(How::Truncate(1)), &binary).unwrap(), 1), [""]);
    assert_eq!(strings(left(&Plan::Whole(How::Hash), &binary).unwrap(), 1)[0].len(), 32);
}

#[test]
fn numbers_are_rounded_down_hashed_where_they_have_room_or_dropped() {
    let floats = tensor_of(DataType::Fp32, [37.5_f32, -3.0].map(f32::to_le_bytes).concat());
    let rounded = left(&Plan::Whole(How::Bucket(10.0)), &floats).unwrap();
    assert_eq!(rounded, [30.0_f32, -10.0].map(f32::to_le_bytes).concat());
    for how in [How::Hash, How::Truncate(1), How::Drop] {
        assert_eq!(left(&Plan::Whole(how), &floats), None);
    }
    let one = left(&Plan::Scalars(vec![(1, How::Hash)], 2), &floats).unwrap();
    assert_eq!(one[..4], 37.5_f32.to_le_bytes());
    assert!(f32::from_le_bytes(*one[4..].first_chunk().unwrap()).is_nan());
    let whole = tensor_of(DataType::Int64, 4711_i64.to_le_bytes().to_vec());
    let hashed = left(&Plan::Whole(How::Hash), &whole).unwrap();
    assert_eq!(hashed, hasher().hash(&4711_i64.to_le_bytes())[..8]);
    let bytes = tensor_of(DataType::Uint8, vec![0, 9, 255]);
    assert_eq!(left(&Plan::Whole(How::Bucket(10.0)), &bytes).unwrap(), [0, 0, 250]);
    let flags = tensor_of(DataType::Bool, vec![1]);
    assert_eq!(left(&Plan::Whole(How::Bucket(1.0)), &flags), None);
}

proptest! {
    #[test]
    fn whatever_is_not_kept_is_nowhere_in_what_is_left(
        before in "[a-z]{0,8}", after in "[a-z]{0,8}", place in 0_usize..3, whole: bool,
    ) {
        let mut texts = [before.clone(), after, before];
        texts[place] = format!("{}{SECRET}", texts[place]);
        let given = Tensor::from_strings(vec![1, 3], &texts).unwrap();
        for how in [How::Drop, How::Hash, How::Truncate(6), How::Bucket(1.0)] {
            let plan = if whole { Plan::Whole(how) } else { Plan::Scalars(vec![(place, how)], 3) };
            let left = left(&plan, &given).unwrap_or_default();
            prop_assert!(!left.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()));
        }
    }
}
