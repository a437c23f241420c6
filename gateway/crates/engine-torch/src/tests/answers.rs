//! What comes out is what tch's own forward gives.

use super::*;
use std::sync::Arc;
use std::thread;

/// tch's own forward on the same file, for FP32 inputs and outputs.
fn reference(file: &File, inputs: &[Tensor]) -> Vec<Vec<f32>> {
    let module = tch::CModule::load(&file.path).unwrap();
    let inputs: Vec<tch::IValue> = inputs
        .iter()
        .map(|input| {
            let shape: Vec<i64> = input.shape().iter().map(|&size| size as i64).collect();
            tch::IValue::Tensor(tch::Tensor::from_slice(&floats(input)).reshape(shape))
        })
        .collect();
    let tensors = match module.forward_is(&inputs).unwrap() {
        tch::IValue::Tensor(tensor) => vec![tensor],
        tch::IValue::Tuple(values) => {
            values.into_iter().map(|value| tch::Tensor::try_from(value).unwrap()).collect()
        }
        other => panic!("unexpected {other:?}"),
    };
    tensors.iter().map(|tensor| Vec::try_from(tensor.flatten(0, -1)).unwrap()).collect()
}

fn plain(mut fixture: Fixture) -> Fixture {
    fixture.graph = Graph::Plain;
    fixture
}

#[test]
fn a_lone_call_gets_what_tch_gets() {
    let fixture = plain(fixtures::mlp());
    let file = file(&fixture);
    let model = load_bytes(&fixture, &file.bytes, &[]).unwrap();
    let input = rows(3, 64);
    let run = model.run(&one(input.clone())).unwrap();
    assert_eq!(run.outputs[0].shape(), [3, 10]);
    assert_eq!(floats(&run.outputs[0]), reference(&file, &[input])[0]);
}

#[test]
fn stacked_calls_get_what_their_rows_in_one_tensor_get() {
    let fixture = plain(fixtures::mlp());
    let file = file(&fixture);
    let model = load_bytes(&fixture, &file.bytes, &[]).unwrap();
    let whole = rows(6, 64);
    let calls: Vec<Vec<Tensor>> =
        whole.split_rows(&[1, 3, 2]).into_iter().map(|tensor| vec![tensor]).collect();
    let batch = Batch::stack(&calls.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let run = model.run(&batch).unwrap();
    assert_eq!(floats(&run.outputs[0]), reference(&file, &[whole])[0]);
}

#[test]
fn several_inputs_and_a_tuple_keep_their_order() {
    let fixture = plain(fixtures::add_sub());
    let file = file(&fixture);
    let model = load_bytes(&fixture, &file.bytes, &[]).unwrap();
    let inputs = [rows(2, 4), fp32(&[2, 4], &[1.0; 8])];
    let run = model.run(&Batch::single(&inputs, 2)).unwrap();
    let expected = reference(&file, &inputs);
    assert_eq!(run.outputs.iter().map(floats).collect::<Vec<_>>(), expected);
}

#[test]
fn dict_outputs_are_found_by_name() {
    let model = load(&fixtures::dict_out(), &[]).unwrap();
    let run = model.run(&one(fp32(&[1, 3], &[-2.0, 0.0, 5.0]))).unwrap();
    assert_eq!(floats(&run.outputs[0]), [-4.0, 0.0, 10.0]);
    assert_eq!(run.outputs[1], int64(&[1, 3], &[-1, 0, 1]));
}

#[test]
fn lists_of_tensors_are_outputs_too() {
    let mut fixture = fixtures::add_sub();
    fixture.source = "def forward(self, a: Tensor, b: Tensor):\n    return [a + b, a - b]\n".into();
    let model = load(&fixture, &[]).unwrap();
    let run = model.run(&Batch::single(&[rows(1, 4), rows(1, 4)], 1)).unwrap();
    assert_eq!(floats(&run.outputs[1]), [0.0; 4]);
}

#[test]
fn every_dtype_survives_the_round_trip() {
    for datatype in DataType::ALL {
        let Some(size) = datatype.size() else {
            continue;
        };
        let fixture = fixtures::echo(datatype);
        // No byte pattern is a NaN of any type, and the top bits are used; zero rows work too.
        let pattern: Vec<u8> = match datatype {
            DataType::Bool => (0..24).map(|i| i % 2).collect(),
            _ => (0..24 * size).map(|i| [0x91_u8, 0x52, 0x33, 0xC4][i % 4]).collect(),
        };
        for (shape, data) in [(vec![4, 6], pattern), (vec![0, 6], Vec::new())] {
            let input = Tensor::new(datatype, shape, data.into()).unwrap();
            let samples = [one(input.clone())];
            let model = load(&fixture, &samples).unwrap();
            let run = model.run(&one(input.clone())).unwrap();
            assert_eq!(run.outputs, [input], "{datatype}: {:?}", model.notes());
        }
    }
}

#[test]
fn outputs_that_are_not_dense_are_made_so() {
    let model = load(&fixtures::transpose(), &[]).unwrap();
    let input = fp32(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let run = model.run(&Batch::single(&[input], 1)).unwrap();
    assert_eq!(run.outputs, [fp32(&[3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0])]);
}

#[test]
fn a_large_output_outlives_its_model_and_moves_between_threads() {
    let model =
        load(&simple("def forward(self, x: Tensor):\n    return x * 2\n", 4096), &[]).unwrap();
    let input = rows(64, 4096);
    let expected: Vec<f32> = floats(&input).iter().map(|value| value * 2.0).collect();
    let run = model.run(&one(input)).unwrap();
    drop(model);
    let pieces = run.outputs[0].split_rows(&[1, 63]);
    drop(run);
    thread::spawn(move || {
        let joined: Vec<f32> = pieces.iter().flat_map(floats).collect();
        assert_eq!(joined, expected);
    })
    .join()
    .unwrap();
}

#[test]
fn an_answer_that_is_the_models_own_memory_is_copied() {
    // The module hands out its buffer and changes it in the next run.
    let mut fixture = simple(
        "def forward(self, x: Tensor):\n    self.state.add_(x)\n    return self.state\n",
        2048,
    );
    fixture.graph = Graph::Plain;
    let values = vec![0.0; 2048];
    fixture.weights = vec![fixtures::Weights { name: "state", shape: vec![1, 2048], values }];
    let model = load(&fixture, &[]).unwrap();
    let first = model.run(&one(fp32(&[1, 2048], &[1.0; 2048]))).unwrap();
    let second = model.run(&one(fp32(&[1, 2048], &[1.0; 2048]))).unwrap();
    assert_eq!(floats(&first.outputs[0]), vec![1.0; 2048]);
    assert_eq!(floats(&second.outputs[0]), vec![2.0; 2048]);
}

#[test]
fn one_tensor_under_two_names_is_two_outputs() {
    let mut fixture = fixtures::add_sub();
    for spec in &mut fixture.outputs {
        spec.shape = vec![-1, -1];
    }
    for spec in &mut fixture.inputs {
        spec.shape = vec![-1, -1];
    }
    fixture.source =
        "def forward(self, a: Tensor, b: Tensor):\n    c = a + b\n    return c, c\n".into();
    let model = load(&fixture, &[]).unwrap();
    let run = model.run(&Batch::single(&[rows(4, 1024), rows(4, 1024)], 4)).unwrap();
    assert_eq!(run.outputs[0], run.outputs[1]);
    assert_eq!(run.outputs[0].shape(), [4, 1024]);
}

#[test]
fn a_small_piece_of_a_large_tensor_does_not_hold_on_to_it() {
    let source = "def forward(self, x: Tensor):\n    \
                  big = x.sum() + torch.zeros(1024, 4096)\n    return big[:1, :2048]\n";
    let mut fixture = simple(source, 2048);
    fixture.inputs[0].shape = vec![-1, 1];
    let model = load(&fixture, &[]).unwrap();
    let first = model.run(&one(rows(1, 1))).unwrap();
    let before = resident();
    // A gibibyte, if each held on to its 16 MiB: far above what tests beside this one take.
    let kept: Vec<_> = (0..64).map(|_| model.run(&one(rows(1, 1))).unwrap()).collect();
    let grown = resident().saturating_sub(before);
    assert!(grown < 512 << 20, "{} MiB for 64 pieces of 8 KiB", grown >> 20);
    assert!(kept.iter().all(|run| run.outputs == first.outputs));
}

#[test]
fn runs_at_the_same_time_do_not_mix() {
    let fixture = fixtures::mlp();
    let samples = [one(rows(1, 64)), one(rows(64, 64))];
    let model: Arc<dyn Model> = load(&fixture, &samples).unwrap().into();
    let threads: Vec<_> = (1..=8)
        .map(|count| {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                TorchEngine.prepare_thread();
                let values: Vec<f32> = (0..count * 64).map(|i| (i * count) as f32 * 0.01).collect();
                let batch = one(fp32(&[count, 64], &values));
                let first = model.run(&batch).unwrap();
                for _ in 0..200 {
                    assert_eq!(model.run(&batch).unwrap().outputs, first.outputs);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Memory of this process that is in use, in bytes.
pub(super) fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn probing_shows_outputs_nobody_declared_with_the_names_the_model_has() {
    let fixture = fixtures::dict_out();
    let file = file(&fixture);
    prepare_process();
    let source = ModelSource {
        label: "test/1",
        file: &file.bytes,
        inputs: &fixture.inputs,
        outputs: &[],
        device: "cpu",
        options: EngineOptions::default(),
        samples: &[],
        tolerance: 0.0,
    };
    let shape: Vec<usize> =
        fixture.inputs[0].shape.iter().map(|&size| usize::try_from(size).unwrap_or(2)).collect();
    let data = vec![0; shape.iter().product::<usize>() * 4];
    let input = Tensor::new(DataType::Fp32, shape, data.into()).unwrap();
    let seen = TorchEngine.probe(&source, &Batch::single(&[input], 2)).unwrap();
    let names: Vec<_> = seen.into_iter().filter_map(|(name, _)| name).collect();
    assert_eq!(names, ["sign", "unused", "double"]);
}
