//! Precision, memory layout and threads: what they change, and what they must not.

use super::*;
use std::num::NonZeroUsize;

const BF16: EngineOptions = EngineOptions {
    graph: Graph::Plain,
    precision: Precision::Bf16,
    channels_last: false,
    threads: NonZeroUsize::MIN,
};

/// A convolution over images of 3 channels, with a second one behind it.
fn convolution() -> Fixture {
    let mut fixture = simple(
        "def forward(self, x: Tensor):\n    \
             x = torch.relu(torch.conv2d(x, self.first, None, [1, 1], [1, 1]))\n    \
             return torch.conv2d(x, self.second, None, [1, 1], [1, 1])\n",
        1,
    );
    fixture.inputs[0].shape = vec![-1, 3, 8, 8];
    fixture.outputs[0].shape = vec![-1, 4, 8, 8];
    let weights = |name, shape: [i64; 4]| {
        let count = shape.iter().product::<i64>();
        let values = (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.004).collect();
        fixtures::Weights { name, shape: shape.to_vec(), values }
    };
    fixture.weights = vec![weights("first", [16, 3, 3, 3]), weights("second", [4, 16, 3, 3])];
    fixture
}

fn images(count: usize) -> Tensor {
    let values: Vec<f32> = (0..count * 192).map(|i| (i % 97) as f32 * 0.02 - 1.0).collect();
    fp32(&[count, 3, 8, 8], &values)
}

fn answer(model: &dyn Model, input: &Tensor) -> Tensor {
    model.run(&one(input.clone())).unwrap().outputs.remove(0)
}

/// The largest difference, as a share of the largest value.
fn apart(expected: &Tensor, actual: &Tensor) -> f32 {
    assert_eq!((expected.shape(), expected.datatype()), (actual.shape(), actual.datatype()));
    let (expected, actual) = (floats(expected), floats(actual));
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let worst = expected.iter().zip(&actual).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    worst / largest
}

#[test]
fn bf16_keeps_the_types_of_the_wire_and_answers_nearly_alike() {
    let mlp = fixtures::mlp();
    let file = file(&mlp);
    let input = rows(8, 64);
    let plain = load_bytes(&mlp, &file.bytes, &[]).unwrap();
    let expected = answer(&*plain, &input);
    for graph in [Graph::Plain, Graph::Frozen, Graph::Auto, Graph::Both] {
        let options = EngineOptions { graph, ..BF16 };
        let model = load_as(&mlp, &file.bytes, options, &[one(input.clone())]).unwrap();
        assert!(model.notes().contains(&"precision: bf16".to_owned()), "{:?}", model.notes());
        let share = apart(&expected, &answer(&*model, &input));
        assert!(share > 0.0 && share < 0.03, "{share} in {:?}", model.notes());
    }
}

#[test]
fn bf16_leaves_whole_numbers_alone() {
    // Ids beyond 256 are not whole in BF16; the table of one number for each says which was read.
    let mut fixture = fixtures::lookup();
    let values: Vec<f32> = (0..600_u16).map(|i| f32::from(i % 7)).collect();
    fixture.weights = vec![fixtures::Weights { name: "table", shape: vec![600, 1], values }];
    fixture.outputs[0].shape = vec![-1, 3, 1];
    let file = file(&fixture);
    let ids = int64(&[1, 3], &[257, 258, 599]);
    let model = load_as(&fixture, &file.bytes, BF16, &[one(ids.clone())]).unwrap();
    assert_eq!(floats(&answer(&*model, &ids)), [257 % 7, 258 % 7, 599 % 7].map(|i| i as f32));
}

#[test]
fn bf16_that_answers_otherwise_fails_the_load() {
    // Nearly all of it cancels out.
    let source = "def forward(self, x: Tensor):\n    return (x + 1000.0) - 1000.0\n";
    let fixture = simple(source, 4);
    let file = file(&fixture);
    let sample = [one(fp32(&[1, 4], &[0.5, 0.25, 1.5, 0.75]))];
    let error = load_as(&fixture, &file.bytes, BF16, &sample).unwrap_err();
    assert_eq!(error.fault(), Fault::Load);
    let text = error.message();
    assert!(
        text.starts_with(
            "precision = \"bf16\" does not suit this model: output 'y' differs in row 0"
        ),
        "{text}"
    );
}

#[test]
fn bf16_that_the_model_cannot_do_fails_the_load() {
    let source = "def forward(self, x: Tensor):\n    return torch.matmul(x, torch.eye(4))\n";
    let fixture = simple(source, 4);
    let file = file(&fixture);
    let error = load_as(&fixture, &file.bytes, BF16, &[one(rows(1, 4))]).unwrap_err();
    assert_eq!(
        error.message(),
        "precision = \"bf16\" does not suit this model: it fails on a sample that the model as \
         exported answers"
    );
    let unseen = load_as(&fixture, &file.bytes, BF16, &[]).unwrap();
    assert_eq!(unseen.notes()[1], "precision: bf16 (not verified: there is no sample)");
}

#[test]
fn a_wrong_type_is_no_matter_of_precision() {
    let mut fixture = fixtures::dict_out();
    fixture.outputs[1].datatype = DataType::Fp32; // it is INT64
    let file = file(&fixture);
    let model = load_as(&fixture, &file.bytes, BF16, &[]).unwrap();
    let error = model.run(&one(fp32(&[1, 3], &[1.0, 2.0, 3.0]))).unwrap_err();
    assert_eq!(error.message(), "output 'sign' is INT64, the signature says FP32");
}

#[test]
fn channels_last_answers_alike_in_the_same_order() {
    let fixture = convolution();
    let file = file(&fixture);
    let input = images(5);
    let plain = load_bytes(&fixture, &file.bytes, &[]).unwrap();
    let expected = answer(&*plain, &input);
    for graph in [Graph::Plain, Graph::Frozen, Graph::Optimized, Graph::Auto] {
        let options = EngineOptions { graph, channels_last: true, ..EngineOptions::default() };
        let model = load_as(&fixture, &file.bytes, options, &[one(input.clone())]).unwrap();
        assert!(model.notes().contains(&"channels last".to_owned()), "{:?}", model.notes());
        let share = apart(&expected, &answer(&*model, &input));
        assert!(share < 1e-5, "{share} in {:?}", model.notes());
    }
}

#[test]
fn both_conversions_go_together() {
    let fixture = convolution();
    let file = file(&fixture);
    let input = images(3);
    let expected = answer(&*load_bytes(&fixture, &file.bytes, &[]).unwrap(), &input);
    let options = EngineOptions { channels_last: true, ..BF16 };
    let model = load_as(&fixture, &file.bytes, options, &[one(input.clone())]).unwrap();
    assert_eq!(model.notes()[1..], ["precision: bf16", "channels last"]);
    let share = apart(&expected, &answer(&*model, &input));
    assert!(share > 0.0 && share < 0.03, "{share}");
}

#[test]
fn channels_last_reaches_the_model() {
    let source = "def forward(self, x: Tensor):\n    \
                  return torch.full([x.size(0)], x.stride(1))\n";
    let mut fixture = simple(source, 1);
    fixture.inputs[0].shape = vec![-1, 3, 8, 8];
    fixture.outputs[0].shape = vec![-1];
    fixture.outputs[0].datatype = DataType::Int64;
    let file = file(&fixture);
    let stride = |channels_last| {
        let options =
            EngineOptions { channels_last, graph: Graph::Plain, ..EngineOptions::default() };
        let model = load_as(&fixture, &file.bytes, options, &[]).unwrap();
        answer(&*model, &images(2))
    };
    assert_eq!(stride(false), int64(&[2], &[64, 64]));
    assert_eq!(stride(true), int64(&[2], &[1, 1]));
}

#[test]
fn each_run_has_the_threads_of_its_model() {
    let fixture = fixtures::mlp();
    let file = file(&fixture);
    let load = |threads: usize| {
        let threads = NonZeroUsize::new(threads).unwrap();
        let options = EngineOptions { threads, graph: Graph::Plain, ..EngineOptions::default() };
        load_as(&fixture, &file.bytes, options, &[]).unwrap()
    };
    // A thread of its own: other tests share neither its count nor this thread's.
    let (one_thread, two, three) = (load(1), load(2), load(3));
    assert_eq!(two.notes(), ["graph: plain", "threads: 2"]);
    std::thread::spawn(move || {
        TorchEngine.prepare_thread();
        assert_eq!(tch::get_num_threads(), 1);
        for (model, count) in
            [(&two, 2), (&one_thread, 1), (&three, 3), (&three, 3), (&one_thread, 1)]
        {
            model.run(&one(rows(4, 64))).unwrap();
            assert_eq!(tch::get_num_threads(), count);
        }
    })
    .join()
    .unwrap();
}

#[test]
fn the_cpu_has_no_memory_of_its_own() {
    prepare_process();
    assert_eq!(TorchEngine.device_memory("cpu"), None);
    assert_eq!(TorchEngine.device_memory("cuda:99"), None);
    let model = load(&fixtures::mlp(), &[]).unwrap();
    assert_eq!(model.device_bytes(), None);
}
