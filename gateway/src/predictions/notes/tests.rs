//! What rows hold of calls, and what they must not.

use std::path::Path;
use std::time::Duration;

use engine::{DataType, TensorSpec};
use predlog::{State, TensorRef};
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::time::Instant;

use super::inputs::UNDECLARED;
use super::*;
use crate::predictions::reading;
use crate::types::{
    Caller, IdempotencyKey, Identity, NamedTensor, Origin, OutputSpec, Peer, Protocol, Roles,
    Schedule,
};

const SECRETS: [&str; 9] = [
    "who-calls-it",
    "what-it-is-stuck-to",
    "in-the-header",
    "in-the-parameter",
    "what-they-call-it",
    "an-idempotent-key",
    "the-name-of-a-person",
    "what-nobody-declared",
    "the-answer-to-it-all",
];

const REDACTED: &str = "slices = ['header:x-region', 'parameter:tenant', 'parameter:plan']\n\
    [[prediction_log.redact]]\nfield = 'header.x-region'\nhow = 'hash'\n\
    [[prediction_log.redact]]\nfield = 'slice.tenant'\nhow = 'truncate:3'\n\
    [[prediction_log.redact]]\nfield = 'caller_id'\nhow = 'drop'\n\
    [[prediction_log.redact]]\nfield = 'idempotency_key'\nhow = 'hash'\n\
    [[prediction_log.redact]]\nfield = 'in.name'\nhow = 'hash'\n\
    [[prediction_log.redact]]\nfield = 'in.age'\nhow = 'bucket:10'\n\
    [[prediction_log.redact]]\nfield = 'out.answer'\nhow = 'drop'\n";

fn keyed(folder: &Path) -> String {
    let key = folder.join("key");
    std::fs::write(&key, "a key of sixteen bytes\n").unwrap();
    format!("hash_key = 'file:{}'\n", key.display())
}

fn spec(name: &str, datatype: DataType, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, shape: shape.into() }
}

fn signature() -> Arc<Signature> {
    let output = |spec| OutputSpec { spec, labels: vec![], tolerance: 0.0, finite: false };
    Arc::new(Signature {
        inputs: vec![
            spec("name", DataType::Bytes, &[-1, 1]),
            spec("facts", DataType::Fp32, &[-1, 2]),
        ],
        outputs: vec![
            output(spec("answer", DataType::Bytes, &[-1, 1])),
            output(spec("score", DataType::Fp32, &[-1, 2])),
        ],
        max_batch_size: 4,
        splits: true,
    })
}

fn floats(values: [f32; 2]) -> Tensor {
    Tensor::new(DataType::Fp32, vec![1, 2], values.map(f32::to_le_bytes).concat().into()).unwrap()
}

fn texts(text: &str) -> Tensor {
    Tensor::from_strings(vec![1, 1], &[text]).unwrap()
}

fn call() -> Call {
    let named = |name: &str, tensor| NamedTensor { name: name.into(), tensor };
    let identity = Identity { name: SECRETS[0].into(), ..Identity::anonymous(Roles::all()) };
    let mut headers = http::HeaderMap::new();
    headers.insert("x-region", SECRETS[2].parse().unwrap());
    headers.insert("x-other", SECRETS[7].parse().unwrap());
    let parameter = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Call {
        caller: Caller::new(Arc::new(identity), Peer::plain(Origin::Unix)),
        id: Some(SECRETS[4].into()),
        model: "m".into(),
        version: None,
        inputs: Inputs::Named(vec![
            named("facts", floats([37.5, 2.0])),
            named("name", texts(SECRETS[6])),
            named("Name", texts(SECRETS[7])),
        ]),
        outputs: vec![],
        schedule: Schedule::default(),
        key: Some(IdempotencyKey::read(SECRETS[5].as_bytes(), 100).unwrap()),
        protocol: Protocol::Http,
        arrived: Instant::now(),
        headers: Arc::new(headers),
        parameters: vec![parameter("tenant", SECRETS[3]), parameter("plan", "gold")],
    }
}

fn notes(log: &Arc<PredictionLog>) -> Option<Notes> {
    let call = call();
    let sticky_key = Some(SECRETS[1].as_bytes());
    let about = About { prediction: PredictionId::new(), guarantee: None, sticky_key };
    let mut notes = Notes::take(log, &call, about)?;
    notes.keep_inputs(&call.inputs);
    Some(notes)
}

fn record(log: &Arc<PredictionLog>, notes: &Notes) {
    record_of(log, notes, &|| {
        let named = |names: [&str; 2]| vec![vec![], names.map(str::to_owned).to_vec()];
        [named(["age", "size"]), named(["no", "yes"])]
    });
}

fn record_of(log: &Arc<PredictionLog>, notes: &Notes, names: &dyn Fn() -> Names) {
    let outputs = [texts(SECRETS[8]), floats([0.25, 0.75])];
    let signature = signature();
    let of = Of { model: "m", inputs: &signature, outputs: &signature, names };
    let row =
        RowRef { model: "m", version: "1", status: Status::Answered as i32, ..RowRef::default() };
    notes.record(row, Some(of), Sides { has_inputs: true, outputs: &outputs });
    assert!(Arc::ptr_eq(notes.log(), log));
}

#[test]
fn redacted_values_are_nowhere_on_the_disk() {
    let folder = TempDir::new().unwrap();
    let lines = keyed(folder.path()) + REDACTED;
    let log = reading::start(&folder.path().join("log"), &lines);
    record(&log, &notes(&log).unwrap());
    let rows = reading::ended(&log);
    let bytes = reading::bytes(log.path());
    for secret in SECRETS {
        let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!found, "{secret} is on the disk");
    }
    // Nor is the number that a rule rounds.
    assert!(!bytes.windows(4).any(|part| part == 37.5_f32.to_le_bytes()));
    let [row] = &rows[..] else { panic!("{} rows", rows.len()) };
    let inputs: Vec<_> = row.inputs.iter().map(|input| (&*input.name, input.state)).collect();
    let (redacted, whole) = (State::Redacted as i32, State::Whole as i32);
    let left_out = State::LeftOut as i32;
    assert_eq!(inputs, [("facts", redacted), ("name", redacted), (UNDECLARED, left_out)]);
    assert_eq!(row.inputs[0].data, floats([30.0, 2.0]).data());
    assert_eq!((row.outputs[0].state, row.outputs[0].data.len()), (redacted, 0));
    assert_eq!((row.outputs[1].state, &row.outputs[1].data), (whole, floats([0.25, 0.75]).data()));
    let slices: Vec<_> = row.slices.iter().map(|s| (&*s.name, &*s.value)).collect();
    assert_eq!(slices[1..], [("tenant", "in-"), ("plan", "gold")]);
    assert_eq!((slices[0].0, slices[0].1.len()), ("x-region", 32));
    assert_eq!((row.caller_id.as_str(), row.idempotency_key.len()), ("", 32));
    assert_eq!((row.identity.len(), row.sticky_key.len()), (32, 32));
}

#[test]
fn without_a_key_nobody_is_named_and_everything_else_is_kept_as_it_came() {
    let folder = TempDir::new().unwrap();
    let log = reading::start(folder.path(), "slices = ['header:x-region']");
    record(&log, &notes(&log).unwrap());
    let rows = reading::ended(&log);
    let row = &rows[0];
    assert_eq!((row.identity.as_str(), row.sticky_key.as_str()), ("", ""));
    assert_eq!((&*row.caller_id, &*row.idempotency_key), (SECRETS[4], SECRETS[5]));
    assert_eq!(row.slices[0].value, SECRETS[2]);
    assert_eq!((row.inclusion, &*row.stratum), (1.0, "all"));
    assert_eq!(row.inputs[0].data, floats([37.5, 2.0]).data());
    // What the signature does not declare has no rules that would be known to be its own.
    assert_eq!((&*row.inputs[2].name, row.inputs[2].data.len()), (UNDECLARED, 0));
    assert_eq!(row.outputs[0].data, texts(SECRETS[8]).data());
}

/// What is left of `facts` and of `score`, whose scalars nobody names.
fn unnamed(rule: &str) -> [i32; 2] {
    let folder = TempDir::new().unwrap();
    let log = reading::start(folder.path(), &format!("[[prediction_log.redact]]\n{rule}"));
    record_of(&log, &notes(&log).unwrap(), &Names::default);
    let rows = reading::ended(&log);
    [rows[0].inputs[0].state, rows[0].outputs[1].state]
}

#[test]
fn a_rule_that_names_nothing_known_drops_what_it_might_mean() {
    let (whole, redacted) = (State::Whole as i32, State::Redacted as i32);
    assert_eq!(unnamed("field = 'in.age'\nhow = 'drop'\nmodel = 'm'"), [redacted, whole]);
    assert_eq!(unnamed("field = 'out.yes'\nhow = 'drop'"), [whole, redacted]);
    // It is about a tensor that is there, or about another model.
    assert_eq!(unnamed("field = 'in.name'\nhow = 'drop'"), [whole, whole]);
    assert_eq!(unnamed("field = 'in.age'\nhow = 'drop'\nmodel = 'n'"), [whole, whole]);
}

#[test]
fn the_same_value_has_another_hash_in_each_field() {
    let folder = TempDir::new().unwrap();
    let rules = "slices = ['parameter:tenant']\n\
        [[prediction_log.redact]]\nfield = 'slice.tenant'\nhow = 'hash'\n\
        [[prediction_log.redact]]\nfield = 'caller_id'\nhow = 'hash'\n";
    let log = reading::start(&folder.path().join("log"), &(keyed(folder.path()) + rules));
    let name = "anna";
    let identity = Identity { name: name.into(), ..Identity::anonymous(Roles::all()) };
    let call = Call {
        caller: Caller::new(Arc::new(identity), Peer::plain(Origin::Unix)),
        id: Some(name.into()),
        parameters: vec![("tenant".to_owned(), name.to_owned())],
        ..call()
    };
    let sticky_key = Some(name.as_bytes());
    let about = About { prediction: PredictionId::new(), guarantee: None, sticky_key };
    let of = || Notes::take(&log, &call, about).unwrap();
    of().record(RowRef::default(), None, Sides { has_inputs: false, outputs: &[] });
    of().record(RowRef::default(), None, Sides { has_inputs: false, outputs: &[] });
    let rows = reading::ended(&log);
    let hashes = |row: &reading::Row| {
        [&row.identity, &row.sticky_key, &row.caller_id, &row.slices[0].value].map(String::clone)
    };
    let all: std::collections::HashSet<String> = hashes(&rows[0]).into();
    assert_eq!((all.len(), hashes(&rows[0]) == hashes(&rows[1])), (4, true));
}

#[test]
fn a_shadow_has_the_inputs_where_its_live_call_may_have_no_row() {
    let folder = TempDir::new().unwrap();
    let log = reading::start(folder.path(), "");
    let signature = signature();
    let names = Names::default;
    let of = Of { model: "m", inputs: &signature, outputs: &signature, names: &names };
    let sampled = |rate, refusals| {
        format!(
            "guarantee = 'sampled'\n\
             [prediction_log.sampling]\nrate = '{rate}'\nrefusals = '{refusals}'"
        )
    };
    for lines in [sampled("100%", "0%"), sampled("0%", "100%"), "guarantee = 'lossy'".to_owned()] {
        log.reload(&lines);
        let watched = notes(&log).unwrap().unhurried();
        let status = Status::Failed as i32;
        let row = RowRef { shadow: "new", status, ..RowRef::default() };
        watched.record(row, Some(of), Sides { has_inputs: true, outputs: &[] });
    }
    let rows = reading::ended(&log);
    let inputs: Vec<_> = rows.iter().map(|row| (&*row.stratum, row.inputs.len())).collect();
    assert_eq!(inputs, [("rest", 0), ("refused", 3), ("all", 0)]);
}

#[test]
fn large_tensors_are_left_out_and_rows_say_so() {
    let folder = TempDir::new().unwrap();
    let log = reading::start(folder.path(), "tensor_limit = '16B'");
    record(&log, &notes(&log).unwrap());
    let rows = reading::ended(&log);
    let states: Vec<_> =
        rows[0].inputs.iter().map(|input| (input.state, input.data.len())).collect();
    let left_out = (State::LeftOut as i32, 0);
    assert_eq!(states, [(State::Whole as i32, 8), left_out, left_out]);
}

#[test]
fn a_reload_holds_for_calls_that_come_afterwards() {
    let folder = TempDir::new().unwrap();
    let log = reading::start(folder.path(), "");
    let before = notes(&log).unwrap();
    log.reload("[[prediction_log.redact]]\nfield = 'caller_id'\nhow = 'drop'");
    record(&log, &notes(&log).unwrap());
    record(&log, &before);
    log.reload("guarantee = 'off'");
    assert!(notes(&log).is_none());
    let ids: Vec<_> = reading::ended(&log).into_iter().map(|row| row.caller_id).collect();
    assert_eq!(ids, ["", SECRETS[4]]);
}

#[test]
fn replays_are_known_by_their_ids_whatever_the_rules_say() {
    let folder = TempDir::new().unwrap();
    let log = reading::start(folder.path(), "redact = [{ field = 'caller_id', how = 'drop' }]");
    let of = PredictionId::new().to_string();
    let id = |id: &str, says: &str| {
        let mut call = Call { id: Some(id.into()), ..call() };
        Arc::make_mut(&mut call.headers).insert(REPLAY_HEADER, says.parse().unwrap());
        let about = About { prediction: PredictionId::new(), guarantee: None, sticky_key: None };
        record(&log, &Notes::take(&log, &call, about).unwrap());
    };
    id(&format!("replay-{of}"), &of);
    // These are words of callers.
    id(&format!("replay-{of}"), "yes");
    id("replay-anna", "anna");
    id(&of, &of);
    let ids: Vec<_> = reading::ended(&log).into_iter().map(|row| row.caller_id).collect();
    assert_eq!(ids, [&*format!("replay-{of}"), "", "", ""]);
}

#[test]
fn sampled_rows_tell_why_and_how_likely_they_were_kept() {
    let folder = TempDir::new().unwrap();
    let lines = |rate: &str, below: f64| {
        format!(
            "guarantee = 'sampled'\n[prediction_log.sampling]\nrate = '{rate}'\n\
             low_confidence = '100%'\nconfidence_output = 'score'\nconfidence_below = {below}"
        )
    };
    let log = reading::start(folder.path(), &lines("0%", 0.5));
    record(&log, &notes(&log).unwrap());
    // No item is unsure, and nothing else is asked for.
    log.reload(&lines("0%", 0.8));
    record(&log, &notes(&log).unwrap());
    let rows = reading::ended(&log);
    let told: Vec<_> = rows.iter().map(|row| (row.inclusion, &*row.stratum)).collect();
    assert_eq!(told, [(1.0, "unsure")]);
}

#[test]
fn the_time_of_arrival_is_that_of_the_wall_clock() {
    const AGO: Duration = Duration::from_secs(1);
    let folder = TempDir::new().unwrap();
    let log = reading::start(folder.path(), "");
    let before = wall_us();
    let late = Call { arrived: Instant::now() - AGO, ..call() };
    let about = About { prediction: PredictionId::new(), guarantee: None, sticky_key: None };
    let notes = Notes::take(&log, &late, about).unwrap();
    let ago = i64::try_from(AGO.as_micros()).unwrap();
    let (before, after) = (before - ago, wall_us() - ago);
    // Two clocks need not go at one pace.
    assert!((before - 1000..=after + 1000).contains(&notes.arrived_us));
    assert!(log.stop(Duration::from_secs(10)));
}

proptest! {
    #[test]
    fn a_row_is_never_larger_than_it_is_said_to_be(
        text in "[a-zä]{0,40}", number: u64, shape in prop::collection::vec(any::<usize>(), 0..8),
        data in prop::collection::vec(any::<u8>(), 0..300), tensors in 0_usize..12,
    ) {
        let one = TensorRef {
            name: &text, datatype: "UINT64", shape: &shape, data: &data, state: State::Redacted,
        };
        let (many, slices) = (vec![one; tensors], vec![(&*text, &*text); tensors]);
        let row = RowRef {
            prediction: [0xff; 16], arrived_us: -1, caller_id: &text, idempotency_key: &text,
            protocol: &text, called: &text, model: &text, version: &text, file_hash: &text,
            route: &text, assigned_arm: &text, arm: &text, fallback: &text, draw: &text,
            bucket: Some(u32::MAX), propensity: Some(0.5), sticky_key: &text, revision: number,
            status: 5, error: &text, queue_us: number, engine_us: number, total_us: number,
            batch_size: u32::MAX, items: u32::MAX, device: &text, identity: &text,
            slices: &slices, inclusion: 0.1, stratum: &text, schema: number, shadow: &text,
            amends: true, inputs: &many, outputs: &many,
        };
        let mut framed = Vec::new();
        predlog::segment::frame(predlog::segment::Kind::Row, &mut framed, |out| row.encode(out));
        prop_assert!(framed.len() <= most_bytes(&row), "{} bytes", framed.len());
    }
}
